import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qgan_jax.precision import Bits, make_precision, Precision
from qgan_jax.training import state as state_lib
from qgan_jax.training import step as step_lib
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import gan

KEY = jax.random.PRNGKey(0)
RATE = 0.1


class G(nn.Module):
  @nn.compact
  def __call__(self, z, labels=None, *, train=False):
    return jnp.tanh(nn.Dense(16)(z)).reshape(-1, 4, 4, 1)


class D(nn.Module):
  @nn.compact
  def __call__(self, x, labels=None, *, train=False):
    return nn.Dense(1)(jnp.tanh(nn.Dense(8)(x.reshape(len(x), -1))))[:, 0]


def network(module, precision=None):
  return Trainable(module, precision or Precision(), optax.sgd(RATE))


def make(
  g, d, n=32, penalty_weight=0.0, ema_decay=0.999, penalty=None, d_steps=1,
  **kwargs
):  # fmt: skip
  bits = Bits(jnp.float32(n), jnp.float32(n))
  # Ranges start from these: constants would clip everything that follows.
  images = jax.random.uniform(KEY, (4, 4, 4, 1), minval=-1)
  networks = {'generator': g, 'discriminator': d}
  examples = {
    'generator': jax.random.normal(KEY, (4, 3)), 'discriminator': images
  }  # fmt: skip
  state = state_lib.init_state(
    KEY,
    {
      name: state_lib.init_network(
        network.module,
        network.precision,
        network.optimizer,
        bits,
        KEY,
        examples[name],
      )
      for name, network in networks.items()
    },
    averaged=('generator',),
    hyperparameters={'penalty_weight': penalty_weight},
    ema_decay=ema_decay,
  )
  variant = gan(
    g.module, d.module, latent_dim=3, penalty=penalty, d_steps=d_steps
  )
  step = step_lib.make_step(variant, networks, **kwargs)
  return state, jax.jit(step)


def with_network(state, name, part):
  """The state with another part for one of its networks."""
  return state.replace(networks={**state.networks, name: part})


def batch(d_steps=1, seed=0):
  rng = np.random.RandomState(seed)
  return {'images': rng.randint(0, 256, (d_steps, 4, 4, 4, 1)).astype('uint8')}


def latents(state, i=0):
  key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), i)
  key, _ = jax.random.split(key)
  return jax.random.normal(jax.random.split(key)[0], (4, 3))


def by_hand(state, images, d_steps):
  """The algorithm, written with nothing of the step's own machinery."""
  g, d = (
    state.networks['generator'].params,
    state.networks['discriminator'].params,
  )
  for i in range(d_steps):
    fake = G().apply({'params': g}, latents(state, i))
    real = images[i].astype(np.float32) / 127.5 - 1

    def d_loss(d, real=real, fake=fake):
      def logit(x):
        return D().apply({'params': d}, x)

      return -(
        jnp.mean(jax.nn.log_sigmoid(logit(real)))
        + jnp.mean(jax.nn.log_sigmoid(-logit(fake)))
      )

    d = jax.tree.map(lambda w, g: w - RATE * g, d, jax.grad(d_loss)(d))

  def g_loss(g):
    fake = G().apply({'params': g}, latents(state, d_steps - 1))
    return -jnp.mean(jax.nn.log_sigmoid(D().apply({'params': d}, fake)))

  g = jax.tree.map(lambda w, g: w - RATE * g, g, jax.grad(g_loss)(g))
  return g, d


def assert_close(a, b, **kwargs):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, **kwargs)


@pytest.mark.parametrize('d_steps', [1, 3])
def test_the_step_is_the_alternating_algorithm(d_steps):
  state, step = make(network(G()), network(D()), ema_decay=0.9, d_steps=d_steps)
  images = batch(d_steps)
  new, metrics = step(state, images)
  g, d = by_hand(state, images['images'], d_steps)
  assert_close(new.networks['generator'].params, g, atol=1e-6)
  assert_close(new.networks['discriminator'].params, d, atol=1e-6)
  # At step 0 the moving average's decay is min(0.9, 1/10).
  average = jax.tree.map(
    lambda old, new: 0.1 * old + 0.9 * new,
    state.networks['generator'].params,
    g,
  )
  assert_close(new.average['generator']['params'], average, atol=1e-6)
  assert int(new.step) == 1
  assert not new.halted
  assert np.isfinite(metrics['d_loss'])


@pytest.mark.parametrize('name', ['r1', 'r1_r2'])
def test_the_penalty_moves_d_as_its_gradient_says(name):
  images = batch()
  plain, step = make(network(G()), network(D()))
  without, _ = step(plain, images)
  state, step = make(
    network(G()), network(D()), penalty=name, penalty_weight=2.0
  )
  with_penalty, metrics = step(state, images)
  seen = [images['images'][0].astype(np.float32) / 127.5 - 1]
  if name == 'r1_r2':
    params = state.networks['generator'].params
    seen.append(G().apply({'params': params}, latents(state)))

  def penalty(d):
    gradient = jax.grad(lambda x: D().apply({'params': d}, x).sum())
    # Weight 2 × ½ × the mean of 4 images.
    return sum(jnp.sum(gradient(x) ** 2) for x in seen) / 4

  expected = jax.tree.map(
    lambda w, g: w - RATE * g,
    without.networks['discriminator'].params,
    jax.grad(penalty)(state.networks['discriminator'].params),
  )
  assert_close(
    with_penalty.networks['discriminator'].params, expected, atol=1e-6
  )
  np.testing.assert_allclose(
    metrics['penalty'],
    penalty(state.networks['discriminator'].params) / 2,
    rtol=1e-5,
  )


def test_a_value_that_is_not_finite_halts_before_it_does_harm():
  state, step = make(network(G()), network(D()))
  state, _ = step(state, batch())
  bad = (
    state.networks['discriminator']
    .params['Dense_0']['kernel']
    .at[0, 0]
    .set(jnp.nan)
  )
  params = dict(state.networks['discriminator'].params)
  params['Dense_0'] = {**params['Dense_0'], 'kernel': bad}
  poisoned = with_network(
    state,
    'discriminator',
    state.networks['discriminator'].replace(params=params),
  )
  halted, metrics = step(poisoned, batch(seed=1))
  assert halted.halted
  assert int(halted.step) == 1
  assert_close(
    halted.networks['generator'].params,
    state.networks['generator'].params,
    atol=0,
  )
  assert not metrics['finite']['discriminator']['Dense_0']['kernel']
  # It stays so, whatever comes.
  again, _ = step(
    with_network(halted, 'discriminator', state.networks['discriminator']),
    batch(),
  )
  assert int(again.step) == 1
  assert_close(
    again.networks['generator'].params,
    state.networks['generator'].params,
    atol=0,
  )


def test_one_compiled_step_serves_every_bit_width():
  precision = make_precision(
    weights='uniform',
    activations='affine',
    per_channel=True,
    ranges='moving',
    momentum=0.99,
    input_bits=8,
  )
  g, d = network(G(), precision), network(D(), precision)
  # Its own compiled programs may be dropped when many tests share a process.
  compiled = make(g, d)[1]
  step = jax.jit(chex.assert_max_traces(lambda *args: compiled(*args), n=1))
  results = [step(make(g, d, n)[0], batch())[0] for n in (2, 4, 8, 32)]
  moved = {
    float(jnp.abs(r.networks['generator'].params['Dense_0']['kernel']).sum())
    for r in results
  }
  assert len(moved) == 4
  # 32 bits in the quantized program are the unquantized one's numbers.
  float_state, float_step = make(network(G()), network(D()))
  expected, _ = float_step(float_state, batch())
  assert_close(
    results[-1].networks['generator'].params,
    expected.networks['generator'].params,
    atol=1e-7,
  )


def test_a_share_of_the_rate_is_a_share_of_the_update():
  g, d = network(G()), network(D())
  state, full = make(g, d)
  _, half = make(g, d, rate_at=lambda step: jnp.where(step < 1, 0.5, 0.0))
  (whole, _), (part, _) = full(state, batch()), half(state, batch())
  for old, new, halved in zip(
    *(
      jax.tree.leaves(s.networks['discriminator'].params)
      for s in (state, whole, part)
    ),
    strict=True,
  ):
    np.testing.assert_allclose(halved - old, (new - old) / 2, atol=1e-7)
  # From step 1 on it is 0: nothing moves any more.
  still, _ = half(part, batch())
  for old, new in zip(
    *(jax.tree.leaves(s.networks['generator'].params) for s in (part, still)),
    strict=True,
  ):
    np.testing.assert_array_equal(old, new)


def test_adaptation_counts_all_images_that_the_discriminator_has_seen():
  seen = []

  def adapt(numbers, metrics, images):
    seen.append(images)
    return {}

  variant = dataclasses.replace(
    gan(G(), D(), latent_dim=3, d_steps=3), adapt=adapt
  )
  networks = {'generator': network(G()), 'discriminator': network(D())}
  state, _ = make(*networks.values())
  jax.eval_shape(step_lib.make_step(variant, networks), state, batch(3))
  assert seen == [3 * 4]
