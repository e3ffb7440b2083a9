"""Learned quantizers, noise and schedules, in the step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import assert_close, batch, D, G, KEY, latents, RATE

from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, Precision, QuantizerSpec
from qgan_jax.precision.replicas import ALONE
from qgan_jax.precision.schedule import Schedule
from qgan_jax.quantizers import by_name
from qgan_jax.training import state as state_lib
from qgan_jax.training import step as step_lib
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.optimizers import make_quantizer_optimizer
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import gan

LEARNED = Precision(
  QuantizerSpec('lsq', -1), QuantizerSpec('lsq_plus'), input_bits=3
)
NOISY = Precision(
  QuantizerSpec('stochastic', -1),
  QuantizerSpec('stochastic'),
  gradients=QuantizerSpec('dorefa_gradient'),
)


def make(
  precision, optimizer=None, n=3, gradients=None, seed=0, penalty=None,
  **kwargs
):  # fmt: skip
  bits = Bits(jnp.float32(n), jnp.float32(n), gradients)
  key = jax.random.PRNGKey(seed)
  images = jax.random.uniform(key, (4, 4, 4, 1), minval=-1)
  optimizer = optimizer or make_quantizer_optimizer(1e-2)
  examples = {
    'generator': jax.random.normal(key, (4, 3)), 'discriminator': images
  }  # fmt: skip
  networks = {
    name: Trainable(module, precision, optax.sgd(RATE), optimizer)
    for name, module in (('generator', G()), ('discriminator', D()))
  }
  parts = {
    name: state_lib.init_network(
      network.module,
      precision,
      network.optimizer,
      bits,
      key,
      examples[name],
      quantizer_optimizer=optimizer,
    )
    for name, network in networks.items()
  }
  variant = gan(G(), D(), latent_dim=3, penalty=penalty)
  step = step_lib.make_step(variant, networks, **kwargs)
  state = state_lib.init_state(
    key,
    parts,
    averaged=('generator',),
    hyperparameters={'penalty_weight': 0.0},
    ema_decay=0.9,
  )
  return state, step


def leaves(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


class Noisy(nn.Module):
  """Draws random numbers of its own."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))
    if train:
      x += jax.random.normal(self.make_rng('noise'), x.shape)
    return x


def init_of(module):
  return state_lib.init_network(
    module,
    LEARNED,
    optax.sgd(RATE),
    Bits(jnp.float32(3), jnp.float32(3)),
    jax.random.PRNGKey(0),
    jnp.ones((2, 4)),
  )


def test_a_module_draws_random_numbers_of_its_own():
  network = Trainable(Noisy(), LEARNED, optax.sgd(RATE))
  state = init_of(Noisy())
  weights = network.quantize(state, state.trained, None)
  outputs = [
    network.run(
      state,
      jnp.ones((2, 4)),
      weights=weights,
      learned=state.learned,
      noise=None,
      dropout=jax.random.PRNGKey(1),
      call=call,
      replicas=ALONE,
    )[0]
    for call in (0, 0, 1)
  ]
  np.testing.assert_array_equal(outputs[0], outputs[1])
  assert jnp.abs(outputs[0] - outputs[2]).min() > 1e-3


def test_parameters_in_boxes_are_taken_out():
  kernel_init = nn.with_partitioning(nn.initializers.normal(), ('in', 'out'))
  part = init_of(nn.Dense(3, kernel_init=kernel_init))
  assert part.params['kernel'].shape == (4, 3)


def test_parameters_have_to_be_float32():
  with pytest.raises(UserError, match='parameters of bfloat16.* param_dtype'):
    init_of(nn.Dense(3, param_dtype=jnp.bfloat16))


class Normalized(nn.Module):
  """Two layers, with BatchNorm between them."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))
    return nn.Dense(2)(nn.relu(x))


def test_batch_norm_does_not_mislead_what_is_fitted_before_the_first_step():
  x = 5 + 20 * jax.random.normal(KEY, (64, 4))
  # So many bits that what the first layer does is exact but for a little.
  bits = Bits(jnp.float32(16), jnp.float32(16))

  def init(activations, variables=None):
    precision = Precision(None, QuantizerSpec(activations))
    return state_lib.init_network(
      Normalized(), precision, optax.sgd(1.0), bits, KEY, x, variables=variables
    )

  state = init('affine')
  layer = state.params['Dense_0']
  y = np.float64(x) @ np.float64(layer['kernel']) + layer['bias']
  y = np.maximum(0, (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5))
  np.testing.assert_allclose(state.ranges['Dense_1'], [0, y.max()], rtol=1e-3)
  scale = init('lsq').learned['activations']['Dense_1']['scale']
  fitted = by_name('lsq').fit(jnp.float32(y), jnp.float32(16))['scale']
  np.testing.assert_allclose(scale, fitted, rtol=1e-2)
  # Training starts from the module's own statistics, as ever.
  start = Normalized().init(KEY, x)
  assert_close(state.stats, {'batch_stats': start['batch_stats']}, rtol=0)
  # Of a trained network they are those that it has.
  ranges = init('affine', start).ranges['Dense_1']
  assert ranges[1] > 5 * y.max()


def test_they_start_from_the_weights_and_from_the_first_batch():
  state, _ = make(LEARNED)
  learned, params = (
    state.networks['generator'].learned,
    state.networks['generator'].params,
  )
  w = params['Dense_0']['kernel']
  assert set(learned['activations']) == {'Dense_0'}
  fitted = by_name('lsq', axis=-1).fit(w, jnp.float32(3))
  assert_close(learned['weights']['Dense_0'], fitted)
  # Of an activation, no worse than its own start, and than its whole range.
  x, n = jax.random.normal(KEY, (4, 3)), jnp.float32(3)
  q = by_name('lsq_plus')

  def error(p):
    return float(jnp.mean((q.apply(x, p, n) - x) ** 2))

  others = (q.fit(x, n), q.from_range(x.min(), x.max(), n))
  found = error(learned['activations']['Dense_0'])
  assert found <= min(map(error, others)) * (1 + 1e-5)
  assert found < max(map(error, others))
  assert state.networks['generator'].ranges == {}


def test_gradient_descent_moves_them_by_the_papers_gradient():
  state, step = make(LEARNED, optax.sgd(RATE))
  new, _ = jax.jit(step)(state, batch())

  def dense(part, learned, layer, x):
    """A layer by hand, from the quantizers' own `apply`."""
    n = jnp.float32(3)
    x = by_name('lsq_plus').apply(x, learned['activations'][layer], n)
    w = by_name('lsq', axis=-1).apply(
      part.params[layer]['kernel'], learned['weights'][layer], n
    )
    return x @ w + part.params[layer]['bias']

  def draw(learned):
    return jnp.tanh(
      dense(state.networks['generator'], learned, 'Dense_0', latents(state))
    )

  def judge(part, learned, x):
    # D makes its last layer first, so that its number is 0.
    x = jnp.tanh(dense(part, learned, 'Dense_1', x))
    return dense(part, learned, 'Dense_0', x)

  def d_loss(learned):
    real = batch()['images'][0].reshape(4, -1).astype(np.float32) / 127.5 - 1
    fake = draw(state.networks['generator'].learned)
    real, fake = (
      judge(state.networks['discriminator'], learned, x) for x in (real, fake)
    )
    return -jnp.mean(jax.nn.log_sigmoid(real)) - jnp.mean(
      jax.nn.log_sigmoid(-fake)
    )

  def g_loss(learned):
    # D's quantizers judge G as they are after D's update.
    d = new.networks['discriminator']
    return -jnp.mean(jax.nn.log_sigmoid(judge(d, d.learned, draw(learned))))

  for name, loss, input_layer, least in (
    ('discriminator', d_loss, 'Dense_1', 9),
    ('generator', g_loss, 'Dense_0', 15),
  ):
    learned = state.networks[name].learned
    gradient = jax.grad(loss)(learned)
    # The range of a network's own input stays.
    ranges = gradient['activations']
    assert np.any(leaves(ranges[input_layer]))
    ranges[input_layer] = jax.tree.map(jnp.zeros_like, ranges[input_layer])
    expected = jax.tree.map(lambda p, g: p - RATE * g, learned, gradient)
    got = new.networks[name].learned
    assert_close(got, expected, rtol=1e-4, atol=1e-7)
    assert np.count_nonzero(leaves(expected) - leaves(learned)) > least
    assert np.all(leaves(got['activations'][input_layer])
                  == leaves(learned['activations'][input_layer]))  # fmt: skip
  assert np.any(
    leaves(new.networks['discriminator'].learned['activations']['Dense_0'])
    != leaves(state.networks['discriminator'].learned['activations']['Dense_0'])
  )
  learned = state.networks['generator'].learned
  # Whether codes are signed is no number to learn.
  assert learned['weights']['Dense_0']['signed'] == 1
  assert new.networks['generator'].learned['weights']['Dense_0']['signed'] == 1
  # The moving average follows them as it follows the weights: 0.1 at step 0.
  average = jax.tree.map(
    lambda old, new: 0.1 * old + 0.9 * new,
    learned,
    new.networks['generator'].learned,
  )
  assert_close(new.average['generator']['learned'], average, rtol=1e-5)


def test_their_optimizer_moves_them_in_proportion():
  optimizer = make_quantizer_optimizer(0.01)
  learned = {
    'weights': {
      'a': {'scale': jnp.float32([1e-3, 10]), 'signed': jnp.float32(1)}
    },
    'activations': {'b': {'scale': jnp.float32(2), 'offset': jnp.float32(0)}},
  }
  gradient = jax.tree.map(jnp.ones_like, learned)
  gradient['weights']['a'] = {
    'scale': jnp.float32([1e-9, 1e3]),
    'signed': jnp.float32(0),
  }
  state = optimizer.init(learned)
  updates, state = optimizer.update(gradient, state, learned)
  scale = updates['weights']['a']['scale']
  np.testing.assert_allclose(scale, [-1e-5, -0.1], rtol=1e-4)
  assert updates['weights']['a']['signed'] == 0
  np.testing.assert_allclose(
    updates['activations']['b']['scale'], -0.02, rtol=1e-5
  )
  np.testing.assert_allclose(
    updates['activations']['b']['offset'], -0.02, rtol=1e-5
  )
  for _ in range(500):
    learned = optax.apply_updates(learned, updates)
    updates, state = optimizer.update(gradient, state, learned)
  assert np.all(learned['weights']['a']['scale'] > 0)


def test_they_resume_exactly(tmp_path):
  state, step = make(LEARNED)
  step = jax.jit(step)
  half, _ = step(state, batch(seed=1))
  whole, _ = step(half, batch(seed=2))
  Checkpoints(tmp_path).save(1, half)
  _, restored = Checkpoints(tmp_path).restore_latest(state)
  again, _ = step(restored, batch(seed=2))
  for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
    np.testing.assert_array_equal(a, b)
  assert np.any(
    leaves(whole.networks['generator'].learned)
    != leaves(half.networks['generator'].learned)
  )


@pytest.mark.parametrize('precision', [LEARNED, NOISY])
def test_members_side_by_side_are_as_alone(precision):
  members = [make(precision, n=n, gradients=jnp.float32(6), seed=n)[0]
             for n in (2, 4)]  # fmt: skip
  _, step = make(precision)
  alone = [jax.jit(step)(state, batch())[0] for state in members]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *members)
  batches = {'images': jnp.stack([batch()['images']] * 2)}
  together, _ = jax.jit(jax.vmap(step))(stacked, batches)
  for i, state in enumerate(alone):
    member = jax.tree.map(lambda x, i=i: x[i], together)
    assert_close(member, state, rtol=1e-4, atol=1e-5)


def test_noise_follows_from_the_key_and_the_step():
  state, step = make(NOISY, gradients=jnp.float32(4))
  step = jax.jit(step)
  first, _ = step(state, batch())
  again, _ = step(state, batch())
  other, _ = step(state.replace(key=jax.random.PRNGKey(7)), batch())
  assert_close(first, again, rtol=0)
  assert np.any(
    leaves(first.networks['discriminator'])
    != leaves(other.networks['discriminator'])
  )
  # Where nothing is stochastic, nothing depends on it.
  quiet, quiet_step = make(LEARNED)
  assert '.random' not in str(jax.make_jaxpr(quiet_step)(quiet, batch()).eqns)


def test_quantized_gradients_are_right_on_average():
  """By hand, D's gradient: the cotangents of both layers are rounded."""
  precision = Precision(gradients=QuantizerSpec('dorefa_gradient'))
  state, step = make(precision, n=32, gradients=jnp.float32(3))
  float_state, float_step = make(Precision(), n=32)
  step = jax.jit(step)

  def update(key):
    new, _ = step(state.replace(key=key), batch())
    return leaves(new.networks['generator'].params) - leaves(
      state.networks['generator'].params
    )

  # Latents follow from the key too, so that only D can be compared: with it.
  expected, _ = jax.jit(float_step)(float_state, batch())
  got = step(state, batch())[0]
  a, b = (leaves(s.networks['discriminator'].params) for s in (got, expected))
  start = leaves(state.networks['discriminator'].params)
  assert np.any(a != b)
  cosine = np.dot(a - start, b - start) / (
    np.linalg.norm(a - start) * np.linalg.norm(b - start)
  )
  assert 0.8 < cosine < 1


def test_quantized_only_from_the_start_step_on():
  schedule = Schedule(start_step=1)
  state, step = make(LEARNED, schedule=schedule)
  step = jax.jit(step)
  float_state, float_step = make(Precision(), n=32)
  first, _ = step(state, batch(seed=1))
  expected, _ = jax.jit(float_step)(float_state, batch(seed=1))
  close = {'rtol': 1e-6, 'atol': 1e-8}
  assert_close(
    first.networks['generator'].params,
    expected.networks['generator'].params,
    **close,
  )
  assert_close(
    first.networks['discriminator'].params,
    expected.networks['discriminator'].params,
    **close,
  )
  assert float(first.networks['generator'].bits.weights) == 3  # The target's.


def test_masks_follow_the_schedule_of_sparsity():
  schedule = Schedule(prune_start=1)
  precision = Precision(QuantizerSpec('uniform'))
  state, step = make(precision, n=32, schedule=schedule)

  def sparse(part):
    return part.replace(bits=part.bits._replace(sparsity=jnp.float32(0.5)))

  networks = {name: sparse(part) for name, part in state.networks.items()}
  state = state.replace(networks=networks)
  step = jax.jit(step)
  first, _ = step(state, batch(seed=1))
  w = [
    s.networks['generator'].params['Dense_0']['kernel'] for s in (state, first)
  ]
  assert np.count_nonzero(w[1] - w[0]) > 0.9 * w[0].size
  second, _ = step(first, batch(seed=2))
  moved = second.networks['generator'].params['Dense_0']['kernel'] - w[1]
  mask = precision.masks(
    first.networks['generator'].params, first.networks['generator'].bits
  )
  np.testing.assert_array_equal(moved[np.asarray(mask['Dense_0']) == 0], 0)
  assert np.count_nonzero(moved) > 0.4 * moved.size
