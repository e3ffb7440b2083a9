import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qgan_jax import quantizers
from qgan_jax.errors import UserError
from qgan_jax.training import optimizers
from qgan_jax.training.optimizers import make_optimizer


def steps(optimizer, gradients):
  """The weights after each update from 0."""
  w = jnp.zeros(2)
  state = optimizer.init(w)
  path = []
  for g in gradients:
    updates, state = optimizer.update(jnp.asarray(g), state, w)
    w = optax.apply_updates(w, updates)
    path.append(np.asarray(w, np.float64))
  return path


GRADIENTS = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]])


def test_sgd_and_momentum_are_their_definitions():
  velocity = w = u = np.zeros(2)
  plain = steps(make_optimizer('sgd', 0.1), GRADIENTS)
  heavy = steps(make_optimizer('momentum', 0.1), GRADIENTS)
  lighter = steps(make_optimizer('momentum', 0.1, momentum=0.0), GRADIENTS)
  for i, g in enumerate(GRADIENTS):
    u = u - 0.1 * g
    velocity = 0.9 * velocity + g
    w = w - 0.1 * velocity
    np.testing.assert_allclose(plain[i], u, rtol=1e-6)
    np.testing.assert_allclose(heavy[i], w, rtol=1e-6)
    np.testing.assert_allclose(lighter[i], u, rtol=1e-6)


def test_adam_is_its_definition():
  # Kingma and Ba, 1412.6980, algorithm 1.
  b1, b2 = 0.5, 0.99
  found = steps(make_optimizer('adam', 0.01, b1=b1, b2=b2), GRADIENTS)
  w = m = v = np.zeros(2)
  for t, g in enumerate(GRADIENTS, 1):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    w = w - 0.01 * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
    np.testing.assert_allclose(found[t - 1], w, rtol=1e-5)


@pytest.mark.parametrize('name', ['adagrad', 'lion', 'optax.lion', 'rmsprop'])
def test_any_other_is_optaxs_own(name):
  own = getattr(optax, name.removeprefix('optax.'))(0.01)
  expected = steps(own, GRADIENTS)
  np.testing.assert_array_equal(
    steps(make_optimizer(name, 0.01), GRADIENTS), expected
  )


@pytest.mark.parametrize(
  ('name', 'kwargs', 'said'),
  [
    ('lyon', {}, "did you mean 'lion'"),
    ('scale_by_learning_rate', {}, 'no optimizer of Optax'),
    ('chain', {}, 'no optimizer of Optax'),
    ('__doc__', {}, 'no optimizer of Optax'),
    ('lbfgs', {}, 'needs more than gradients'),
    ('sgd', {'b1': 0.5}, "'sgd' takes no 'b1'; its arguments are learning_rat"),
    ('momentum', {'b1': 0.5}, "'momentum' takes no 'b1'"),
  ],
)
def test_what_cannot_be_used_is_said(name, kwargs, said):
  with pytest.raises(UserError, match=said):
    make_optimizer(name, 0.1, **kwargs)


def test_the_choice_is_wide():
  assert {'sgd', 'momentum', 'adagrad', 'adam', 'adamw', 'lion'} <= {
    *optimizers.OPTIMIZERS
  }


def test_decays():
  steps = np.arange(0, 101, 10)
  for name, expected in {
    'none': np.ones(11),
    'linear': 1 - steps / 100,
    'cosine': (1 + np.cos(np.pi * steps / 100)) / 2,
  }.items():
    got = [float(optimizers.make_decay(name, 100)(step)) for step in steps]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize('name', quantizers.NAMES)
def test_every_learned_quantizer_has_a_step_in_proportion(name):
  learned = quantizers.by_name(name).learned
  optimizer = optimizers.make_quantizer_optimizer(0.01)
  for size in (1e-3, 10.0) if learned else ():
    params = {'weights': {'up0': {key: jnp.float32(size) for key in learned}}}
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # The first step of Adam is the learning rate, whatever the gradient.
    for key in set(learned) - {'signed'}:
      np.testing.assert_allclose(
        updates['weights']['up0'][key], -0.01 * size, rtol=1e-4
      )


@pytest.mark.parametrize('each', [False, True])
def test_the_quantizers_optimizer_is_a_part_of_another(each):
  """As `optax.multi_transform` has it; it leaves the rest of the tree alone."""
  learned = {'weights': {'up0': {'scale': jnp.float32(0.5)}}}
  net = {'params': {'norm': {'scale': jnp.ones(3)}}, 'learned': learned}
  labels = {name: name for name in net}
  if each:  # A label for every array, and not for the branches that hold them.
    labels = {k: jax.tree.map(lambda _, k=k: k, net[k]) for k in net}
  gradients = jax.tree.map(jnp.ones_like, net)
  alone = optimizers.make_quantizer_optimizer(0.01)
  both = optax.multi_transform(
    {'params': optax.sgd(0.1), 'learned': alone}, labels
  )
  updates, _ = both.update(gradients, both.init(net), net)
  expected, _ = alone.update(gradients['learned'], alone.init(learned), learned)
  assert updates['learned'] == expected
  np.testing.assert_allclose(updates['params']['norm']['scale'], -0.1)
