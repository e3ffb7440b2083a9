"""Gradients against the papers' formulas, and the gradients of those."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import quantizers
from qgan_jax.quantizers.ewgs import ewgs

# One of each function that several names share; EWGS has tests of its own.
SHARED = ('grid', 'bwn', 'fp8_e4m3', 'ewgs')
SHARED += tuple(n for n in quantizers.NAMES if n.startswith('mx'))[1:]
WEIGHTS = [n for n in quantizers.WEIGHTS if n not in SHARED]
ACTIVATIONS = [n for n in quantizers.ACTIVATIONS if n not in SHARED]
BITS = 3.0


def weights(seed=0, shape=(3, 3, 2, 4)):
  return np.random.RandomState(seed).randn(*shape).astype(np.float32) * 0.3


def uniform_inside(x, params, bits):
  reach = max(2 ** (bits - 1) - 1, 1) + (0.5 if bits > 1 else 0)
  return np.abs(x) <= reach * params['scale']


def slope(name, x, params, bits):
  """∂x̂/∂x of the paper, recomputed in float64."""
  x = np.asarray(x, np.float64)
  params = {k: np.asarray(v, np.float64) for k, v in params.items()}
  if name == 'dorefa':
    return (1 - np.tanh(x) ** 2) / np.abs(np.tanh(x)).max()
  if name in ('bwn', 'xnor'):
    return 1 / x.size + np.abs(x).mean() * (np.abs(x) <= 1)
  if name in ('uniform', 'power_of_two_scale', 'uniform_mse', 'stochastic'):
    return uniform_inside(x, params, bits)
  if name in ('affine', 'qgan_em'):
    position = x / params['scale'] + params['zero_point']
    return (position >= -0.5) & (position <= 2**bits - 0.5)
  if name in ('lsq', 'lsq_plus'):
    steps = (x - params.get('offset', 0)) / params['scale']
    half = 2 ** (bits - 1)
    return (steps >= -half) & (steps <= half - 1)
  if name == 'seq':
    return np.abs(x / params['scale']) <= 2 ** (bits - 1)
  if name == 'pixels':
    return np.abs(x) <= 1 + 1 / (2**bits - 1)
  if name == 'logarithmic':
    return np.abs(x) <= 2 ** (params['exponent'] + 0.5)
  if name.startswith('fp8'):
    largest = {'fp8_e4m3': 448, 'fp8_e5m2': 57344}[name]
    return np.abs(x) <= largest * params['scale']
  assert name in ('ternary', 'apot', 'codebook') or name.startswith('mx')
  return np.ones_like(x)


def conv(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def penalty(of_kernel, of_input, kernel, x, v):
  """½‖∂D/∂x‖² of a small convolutional discriminator."""

  def d(x):
    hidden = jnp.tanh(conv(of_input(jnp.sin(x)), of_kernel(kernel)))
    return jnp.sum(hidden * v)

  return 0.5 * jnp.sum(jnp.square(jax.grad(d)(x)))


def penalty_inputs():
  rng = np.random.RandomState(1)
  x = rng.randn(2, 6, 6, 2).astype(np.float32)
  v = rng.randn(2, 3, 3, 4).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(v)


def same(x):
  return x


@pytest.mark.parametrize('name', WEIGHTS)
def test_gradient_penalty_of_quantized_weights(name):
  """The kernel enters through x̂ alone: its gradient is ∂/∂x̂ · slope."""
  quantizer = quantizers.by_name(name)
  kernel = jnp.asarray(weights())
  x, v = penalty_inputs()

  @jax.jit
  def run(kernel):
    params = quantizer.fit(kernel, BITS)
    ours = jax.grad(penalty, 2)(
      lambda k: quantizer.apply(k, params, BITS), same, kernel, x, v
    )
    quantized = quantizer.apply(kernel, params, BITS)
    return ours, params, jax.grad(penalty, 2)(same, same, quantized, x, v)

  ours, params, plain = run(kernel)
  expected = np.asarray(plain) * slope(name, kernel, params, BITS)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(
    ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
  )


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_gradient_penalty_through_quantized_activations(name):
  """Here x̂ is differentiated twice: against x · slope with constants."""
  quantizer = quantizers.by_name(name)
  kernel = jnp.asarray(weights())
  x, v = penalty_inputs()
  hidden = jnp.sin(x)
  params = jax.jit(quantizer.fit)(hidden, BITS)
  if name == 'pact':
    params['alpha'] *= 0.7
    slopes = np.abs(hidden) < params['alpha']
  elif name == 'dorefa_activation':
    slopes = (hidden >= 0) & (hidden <= 1)
  else:
    slopes = slope(name, hidden, params, BITS)
  slopes = jnp.asarray(slopes, jnp.float32)

  @jax.jit
  def run(x, kernel):
    def quantize(h):
      return quantizer.apply(h, params, BITS)

    offset = quantize(hidden) - slopes * hidden
    gradient = jax.grad(penalty, (2, 3))
    return (
      gradient(same, quantize, kernel, x, v),
      gradient(same, lambda h: slopes * h + offset, kernel, x, v),
    )

  for ours, expected in zip(*run(x, kernel), strict=True):
    np.testing.assert_allclose(
      ours, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max())
    )


def test_ewgs_scales_the_gradient_by_how_far_a_value_was_rounded():
  quantizer = ewgs(delta=0.5)
  x = jnp.asarray(weights().ravel())
  params = quantizer.fit(x, BITS)
  g = np.random.RandomState(2).randn(x.size).astype(np.float32)
  _, back = jax.vjp(lambda x: quantizer.apply(x, params, BITS), x)
  # Equation 5, in units of the range [0, 1] from −3 to 3 steps.
  step = float(params['scale'])
  difference = (np.float64(x) - np.rint(np.float64(x) / step) * step) / step / 6
  expected = g * (1 + 0.5 * np.sign(g) * difference)
  np.testing.assert_allclose(back(g)[0], expected, rtol=1e-5, atol=1e-6)
  # Differentiated again with respect to g, the error is a constant.
  again = jax.grad(lambda g: jnp.sum(back(g)[0]))(jnp.asarray(g))
  np.testing.assert_allclose(
    again, 1 + 0.5 * np.sign(g) * difference, rtol=1e-5, atol=1e-6
  )


def test_ewgs_gradient_penalty():
  quantizer = ewgs(delta=0.5)
  kernel = jnp.asarray(weights())
  x, v = penalty_inputs()
  params = quantizer.fit(kernel, BITS)
  quantized = quantizer.apply(kernel, params, BITS)
  g = np.asarray(jax.grad(penalty, 2)(same, same, quantized, x, v))
  difference = np.asarray(kernel - quantized) / float(params['scale']) / 6
  got = jax.grad(penalty, 2)(
    lambda k: quantizer.apply(k, params, BITS), same, kernel, x, v
  )
  expected = g * (1 + 0.5 * np.sign(g) * difference)
  np.testing.assert_allclose(
    got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
  )


def test_slopes_are_constants_of_the_backward_pass():
  """Straight-through twice: how a slope was computed from x is no matter."""
  x = jnp.asarray(weights(7, (30,)))
  g = jnp.asarray(np.random.RandomState(8).randn(30), jnp.float32)

  def sum_of_x_gradients(quantizer, params, x):
    _, back = jax.vjp(lambda x: quantizer.apply(x, params, BITS), x)
    return jnp.sum(back(g)[0])

  def sum_of_params_gradients(quantizer, params, x):
    _, back = jax.vjp(lambda p: quantizer.apply(x, p, BITS), params)
    return sum(jnp.sum(value) for value in back(g)[0].values())

  scaled, learned = ewgs(delta=0.5), quantizers.lsq_plus()
  params = scaled.fit(x, BITS), learned.fit(x, BITS)
  assert not np.any(jax.grad(sum_of_x_gradients, 2)(scaled, params[0], x))
  assert not np.any(jax.grad(sum_of_params_gradients, 2)(learned, params[1], x))


def learned_gradient(name, x, params, g, bits=BITS):
  """Σ g · ∂x̂/∂param of the paper, for every learned param, in float64."""
  x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
  p = {k: np.asarray(v, np.float64) for k, v in params.items()}
  if name in ('lsq', 'lsq_plus', 'seq'):
    half = 2 ** (bits - 1)
    low, high, zero, margin = -half, half - 1, 0.0, 0.0
    if name == 'lsq' and not p['signed']:
      low, high = 0, 2**bits - 1
    if name == 'seq' or (bits == 1 and p.get('signed', 1)):
      zero, margin = -0.5, 0.5
    v = (x - p.get('offset', 0.0)) / p['scale']
    q = np.clip(np.rint(v + zero), low, high) - zero
    inside = (v >= low - zero - margin) & (v <= high - zero + margin)
    rate = 1 / np.sqrt(x.size / p['scale'].size * (high - zero))
    slopes = {'scale': rate * np.where(inside, q - v, q)}
    if name == 'lsq_plus':
      slopes['offset'] = rate * ~inside
  elif name == 'pact':
    below = (x <= -p['alpha']) * p['signed']
    slopes = {'alpha': (x >= p['alpha']) - below}
  else:
    u = x / p['clip']
    y = np.asarray(quantizers.by_name(name).apply(jnp.float32(x), params, bits))
    slopes = {'clip': np.where(np.abs(u) <= 1, y / p['clip'] - u, np.sign(u))}
  sums = {}
  for key, value in slopes.items():
    shared = tuple(
      i for i in range(x.ndim) if p[key].ndim == 0 or p[key].shape[i] == 1
    )
    sums[key] = (g * value).sum(shared).reshape(p[key].shape)
  return sums


@pytest.mark.parametrize('sign', ['signed', 'unsigned'])
@pytest.mark.parametrize('axis', [None, -1])
@pytest.mark.parametrize('bits', [1, 2, 4])
@pytest.mark.parametrize('name', ['lsq', 'lsq_plus', 'seq', 'pact', 'apot'])
def test_learned_params_have_the_gradient_of_their_paper(
  name, bits, axis, sign
):
  quantizer = quantizers.by_name(name, axis=axis)
  x = weights(3, (40, 3))
  x = np.abs(x) if sign == 'unsigned' else x
  g = np.random.RandomState(4).randn(*x.shape).astype(np.float32)
  params = quantizer.fit(x, bits)
  for key in ('scale', 'alpha', 'clip'):  # So that some values clip.
    if key in params:
      params[key] *= 0.6
  if 'offset' in params:
    params['offset'] += 0.05
  got = jax.grad(
    lambda params: jnp.sum(g * quantizer.apply(jnp.asarray(x), params, bits))
  )(params)
  expected = learned_gradient(name, x, params, g, bits)
  assert set(expected) == set(quantizer.learned) - {'signed'}
  for key, value in expected.items():
    np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5)
  if 'signed' in params:
    assert not np.any(got['signed'])


def test_a_centroid_gathers_the_gradients_of_what_shares_it():
  quantizer = quantizers.by_name('codebook')
  x = jnp.asarray(weights(5).ravel())
  params = quantizer.fit(x, 2)
  g = np.random.RandomState(6).randn(x.size).astype(np.float32)
  gx, gparams = jax.grad(
    lambda x, params: jnp.sum(g * quantizer.apply(x, params, 2)), (0, 1)
  )(x, params)
  np.testing.assert_array_equal(gx, g)
  codes = np.asarray(quantizer.encode(x, params, 2))
  for i in range(4):
    np.testing.assert_allclose(
      gparams['centroids'][i], g[codes == i].sum(), rtol=1e-4, atol=1e-5
    )
  assert not np.any(gparams['centroids'][4:])


def test_a_codebook_that_training_disordered():
  quantizer = quantizers.by_name('codebook')
  params = {'centroids': jnp.zeros(256).at[:4].set(jnp.array([3.0, -1, 2, 0]))}
  x = jnp.array([2.9, -5.0, 0.4, 1.9])
  codes = quantizer.encode(x, params, 2)
  np.testing.assert_array_equal(codes, [3, 0, 1, 2])
  np.testing.assert_array_equal(
    quantizer.apply(x, params, 2), [3.0, -1.0, 0.0, 2.0]
  )
  gradient = jax.grad(lambda p: quantizer.apply(x, p, 2)[0])(params)
  assert gradient['centroids'][0] == 1 and gradient['centroids'].sum() == 1


def test_xnor_passes_little_beyond_one():
  quantizer = quantizers.by_name('xnor', axis=-1)
  x = jnp.array([[0.5, 3.0], [-2.0, 0.25]])
  g = jax.grad(lambda x: jnp.sum(quantizer.apply(x, quantizer.fit(x, 1), 1)))(x)
  # Two values to each α: 1/2 + α · 1[|x| ≤ 1], α = 1.25 and 1.625.
  np.testing.assert_allclose(g, [[1.75, 0.5], [0.5, 2.125]])
