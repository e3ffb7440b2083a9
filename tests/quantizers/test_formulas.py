"""Quantizers against the definitions of their papers, in NumPy float64."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.cluster.vq

from qgan_jax import quantizers
from qgan_jax.quantizers.apot import additive_powers
from qgan_jax.quantizers.mse import least_error_scale

X = np.random.RandomState(0).randn(60, 7).astype(np.float32) * 0.3
X64 = X.astype(np.float64)


def fit_apply(name, x, bits, axis=None):
  quantizer = quantizers.by_name(name, axis=axis)
  x = jnp.asarray(x, jnp.float32)
  return np.asarray(quantizer.apply(x, quantizer.fit(x, bits), bits))


@pytest.mark.parametrize('bits', [1, 2, 3, 8])
def test_dorefa_weights(bits):
  if bits == 1:
    expected = np.abs(X64).mean() * np.where(X64 >= 0, 1, -1)
  else:
    r = np.tanh(X64) / (2 * np.abs(np.tanh(X64)).max()) + 0.5
    n = 2**bits - 1
    expected = 2 * np.rint(n * r) / n - 1
  np.testing.assert_allclose(fit_apply('dorefa', X, bits), expected, atol=1e-6)


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_dorefa_activations(bits):
  n = 2**bits - 1
  expected = np.rint(n * np.clip(X64 * 3, 0, 1)) / n
  got = fit_apply('dorefa_activation', X * 3, bits)
  # At a boundary, float32 may take the other level.
  assert (np.abs(got - expected) > 1e-6).mean() < 0.01


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_pixels(bits):
  levels = np.linspace(-1, 1, 2**bits)
  x = X64 * 5  # Some of them are beyond −1 and 1.
  expected = levels[np.abs(x[..., None] - levels).argmin(-1)]
  np.testing.assert_allclose(fit_apply('pixels', x, bits), expected, atol=1e-6)


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_dorefa_gradients_without_noise(bits):
  top, n = np.abs(X64).max(axis=1, keepdims=True), 2**bits - 1
  expected = 2 * top * (np.rint(n * (X64 / (2 * top) + 0.5)) / n - 0.5)
  got = fit_apply('dorefa_gradient', X, bits, axis=0)
  np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize('bits', [2, 3, 8])
@pytest.mark.parametrize('signed', [True, False])
def test_lsq(bits, signed):
  x = X64 if signed else np.abs(X64)
  qn, qp = (
    (2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
  )

  def by_hand(s):
    return s * np.clip(np.rint(x / s), -qn, qp)

  def error(s):
    return np.square(by_hand(s) - x).mean()

  lsq, z = quantizers.lsq(), jnp.asarray(x, jnp.float32)
  params = lsq.fit(z, bits)
  got = np.asarray(lsq.apply(z, params, bits))
  np.testing.assert_allclose(
    got, by_hand(np.float64(params['scale'])), atol=1e-6
  )
  # It starts where the error is least, which the paper's start is far from.
  papers = 2 * np.abs(x).mean() / np.sqrt(qp)
  tried = np.geomspace(0.01, 1, 500) * np.abs(x).max() * 2 / (qp + 1)
  least = min(map(error, tried))
  assert error(params['scale']) <= 1.05 * least < error(papers)


def test_lsq_of_one_bit_starts_at_the_mean_magnitude():
  expected = np.abs(X64).mean() * np.sign(X64)
  np.testing.assert_allclose(fit_apply('lsq', X, 1), expected, atol=1e-6)


@pytest.mark.parametrize('bits', [2, 3, 8])
def test_lsq_plus_of_weights(bits):
  half = 2 ** (bits - 1)
  m, d = X64.mean(), X64.std()
  s = max(abs(m - 3 * d), abs(m + 3 * d)) / half
  expected = s * np.clip(np.rint(X64 / s), -half, half - 1)
  np.testing.assert_allclose(
    fit_apply('lsq_plus', X, bits), expected, atol=1e-6
  )


@pytest.mark.parametrize('bits', [1, 2, 3, 8])
def test_lsq_plus_of_activations(bits):
  quantizer = quantizers.lsq_plus()
  low, high = -0.2, 0.9
  params = quantizer.from_range(jnp.float32(low), jnp.float32(high), bits)
  got = quantizer.apply(jnp.asarray(X), params, bits)
  s = (high - low) / (2**bits - 1)
  expected = low + s * np.clip(np.rint((X64 - low) / s), 0, 2**bits - 1)
  np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize('bits', [1, 2, 3])
def test_seq_has_all_its_levels_around_zero(bits):
  quantizer = quantizers.seq()
  params = {'scale': jnp.float32(0.2)}
  got = quantizer.apply(jnp.asarray(X), params, bits)
  half = 2 ** (bits - 1)
  # ParetoQ: α · (⌊clip(x/α)·k/2 − ½⌉ + ½) / k · 2, with α = s · k/2.
  unit = np.clip(X64 / (0.2 * half), -1 + 1e-9, 1 - 1e-9)
  expected = 0.2 * half * (np.rint(unit * half - 0.5) + 0.5) / half
  np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize('bits', [1, 2, 4])
@pytest.mark.parametrize('alpha', [0.2, 0.5])
def test_pact(bits, alpha):
  quantizer = quantizers.pact()
  params = {'alpha': jnp.float32(alpha), 'signed': jnp.float32(0)}
  got = quantizer.apply(jnp.asarray(X), params, bits)
  y = 0.5 * (np.abs(X64) - np.abs(X64 - alpha) + alpha)
  n = 2**bits - 1
  np.testing.assert_allclose(got, np.rint(y * n / alpha) * alpha / n, atol=1e-6)


@pytest.mark.parametrize('axis', [None, 1])
def test_xnor_and_ternary(axis):
  shared = None if axis is None else 0
  alpha = np.abs(X64).mean(axis=shared, keepdims=True)
  expected = alpha * np.where(X64 >= 0, 1, -1)
  for name in ('xnor', 'bwn'):
    got = fit_apply(name, X, 8, axis)
    np.testing.assert_allclose(got, expected, atol=1e-6)
  above = np.abs(X64) > 0.7 * alpha
  mean = (np.abs(X64) * above).sum(axis=shared, keepdims=True)
  mean = mean / above.sum(axis=shared, keepdims=True)
  got = fit_apply('ternary', X, 8, axis)
  np.testing.assert_allclose(got, mean * above * np.sign(X64), atol=1e-6)


@pytest.mark.parametrize('bits', [2, 3, 4, 8])
def test_logarithmic(bits):
  number = 2 ** (bits - 1) - 1
  top = np.rint(np.log2(np.abs(X64).max()))
  least = top - number + 1
  exponent = np.clip(np.rint(np.log2(np.abs(X64))), least, top)
  expected = np.where(np.abs(X64) < 2 ** (least - 1), 0, 2.0**exponent)
  got = fit_apply('logarithmic', X, bits)
  np.testing.assert_array_equal(got, np.sign(X64) * expected)


@pytest.mark.parametrize(
  ('bits', 'expected'),
  [
    # The sums of the authors' sets, over their largest, by hand.
    (1, [0, 1]),
    (2, [0, 1 / 4, 1 / 2, 1]),
    (3, np.array([0, 1, 2, 3, 4, 6, 8, 10]) / 10),
    (
      4,
      np.array([0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48]) / 48,
    ),
  ],
)
def test_additive_powers(bits, expected):
  np.testing.assert_allclose(additive_powers(bits), expected, rtol=1e-12)


@pytest.mark.parametrize('bits', [2, 3, 5, 8])
def test_apot_is_the_nearest_sum_of_powers(bits):
  clip = 3 * np.sqrt((X64**2).mean())
  levels = additive_powers(bits - 1)
  assert levels.size == 2 ** (bits - 1) == np.unique(levels).size
  near = np.abs(np.abs(X64 / clip)[..., None] - levels).argmin(-1)
  expected = clip * np.sign(X64) * levels[near]
  np.testing.assert_allclose(fit_apply('apot', X, bits), expected, atol=1e-6)


@pytest.mark.parametrize('bits', [1, 2, 3])
def test_codebook_is_k_means_from_even_spacing(bits):
  x = X64.ravel()
  start = np.linspace(x.min(), x.max(), 2**bits)
  centroids, _ = scipy.cluster.vq.kmeans2(
    x[:, None], start[:, None], iter=20, minit='matrix'
  )
  quantizer = quantizers.codebook()
  params = quantizer.fit(jnp.asarray(X), bits)
  np.testing.assert_allclose(
    params['centroids'][: 2**bits], centroids[:, 0], atol=1e-5
  )
  near = np.abs(X64[..., None] - centroids[:, 0]).argmin(-1)
  np.testing.assert_allclose(
    fit_apply('codebook', X, bits), centroids[near, 0], atol=1e-5
  )


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_qgan_em(bits):
  n = 2**bits - 1
  alpha, beta = (X64.max() - X64.min()) / n, X64.min()
  for _ in range(12):
    z = np.clip(np.rint((X64 - beta) / alpha), 0, n)
    alpha = ((X64 - X64.mean()) * (z - z.mean())).mean() / z.var()
    beta = X64.mean() - alpha * z.mean()
  z = np.clip(np.rint((X64 - beta) / alpha), 0, n)
  got = fit_apply('qgan_em', X, bits)
  # At a boundary, float32 may take the other level.
  wrong = np.abs(got - (alpha * z + beta)) > 1e-5
  assert wrong.mean() < 0.01
  uniform = np.square(fit_apply('affine', X, bits) - X64).mean()
  assert np.square(got - X64).mean() < uniform


@pytest.mark.parametrize('draw', ['randn', 'laplace'])
@pytest.mark.parametrize('bits', [1, 2, 3, 4, 6, 8])
def test_uniform_mse_is_near_the_least_error(bits, draw):
  rng = np.random.RandomState(1)
  x = rng.randn(5000) if draw == 'randn' else rng.laplace(size=5000)
  reach = max(2 ** (bits - 1) - 1, 1)
  zero, low, high = (-0.5, -1, 0) if bits == 1 else (0, -reach, reach)

  def error(scale):
    z = np.clip(np.rint(x / scale + zero), low, high) - zero
    return np.square(x - scale * z).mean()

  ratios = np.linspace(0.02, 1, 2000)
  least = min(error(r * np.abs(x).max() / reach) for r in ratios)
  scale = least_error_scale(jnp.asarray(x, jnp.float32), zero, low, high)
  assert error(float(scale)) <= (1.01 if bits <= 4 else 1.04) * least


# Rounding at random.


@pytest.mark.parametrize('name', ['stochastic', 'dorefa_gradient'])
@pytest.mark.parametrize('bits', [1, 2, 3, 4, 8, 16])
def test_stochastic_rounding_is_unbiased(name, bits):
  """A z-test of the mean for each of 40 values, and of all of them.

  |z| > 5.3 has the probability 1.2e-7; with 41 tests, two names and six
  widths a right implementation fails once in 17,000 keys. The key is fixed.
  """
  quantizer = quantizers.by_name(name)
  x = jnp.asarray(np.random.RandomState(3).randn(40), jnp.float32)
  params = quantizer.fit(x, bits)
  keys = jax.random.split(jax.random.PRNGKey(0), 20_000)
  draws = jax.jit(jax.vmap(lambda key: quantizer.apply(x, params, bits, key)))(
    keys
  )
  draws = np.asarray(draws, np.float64)
  assert len(np.unique(draws)) <= 2**bits
  step = np.diff(np.unique(draws)).min()
  assert (np.abs(draws - np.asarray(x)) < step * (1 + 1e-3)).all()
  # Of x between two levels, p(1 − p) step² is the variance.
  spread = draws.std(0) / np.sqrt(len(draws))
  z = (draws.mean(0) - np.float64(x)) / np.maximum(spread, 1e-6)
  assert np.abs(z).max() < 5.3
  assert abs(z.sum() / np.sqrt(z.size)) < 5.3


def test_rounding_to_nearest_would_fail_that_test():
  quantizer = quantizers.by_name('stochastic')
  x = jnp.asarray(np.random.RandomState(3).randn(40), jnp.float32)
  params = quantizer.fit(x, 2)
  assert np.abs(quantizer.apply(x, params, 2) - x).max() > 0.3


# Against ml_dtypes, bit for bit.

FLOATS = {
  'e4m3': (ml_dtypes.float8_e4m3fn, 448.0, 8),
  'e5m2': (ml_dtypes.float8_e5m2, 57344.0, 15),
  'e2m3': (ml_dtypes.float6_e2m3fn, 7.5, 2),
  'e3m2': (ml_dtypes.float6_e3m2fn, 28.0, 4),
  'mxfp4': (ml_dtypes.float4_e2m1fn, 6.0, 2),
}


def as_dtype(x, name):
  """Rounded by ml_dtypes, saturated."""
  dtype, largest, _ = FLOATS[name]
  return np.clip(x, -largest, largest).astype(dtype).astype(np.float32)


def wide(seed, shape):
  """Values of all magnitudes, and every tie of a three-bit mantissa."""
  rng = np.random.RandomState(seed)
  x = rng.randn(*shape) * 2.0 ** rng.randint(-12, 4, shape)
  ties = rng.randint(-32, 32, shape) * 2.0 ** rng.randint(-9, 0, shape)
  return np.where(rng.rand(*shape) < 0.5, x, ties).astype(np.float32)


@pytest.mark.parametrize('name', ['e4m3', 'e5m2'])
@pytest.mark.parametrize('factor', [1e-6, 1.0, 3e4])
def test_fp8_is_ml_dtypes(name, factor):
  x = wide(0, (4000,)) * np.float32(factor)
  _, largest, _ = FLOATS[name]
  scale = np.float32(2.0 ** np.ceil(np.log2(np.abs(x).max() / largest)))
  expected = as_dtype(x / scale, name) * scale
  got = fit_apply(f'fp8_{name}', x, 8)
  np.testing.assert_array_equal(
    got.view(np.uint32) << 1, expected.view(np.uint32) << 1
  )


@pytest.mark.parametrize(
  'name',
  ['mxfp8_e4m3', 'mxfp8_e5m2', 'mxfp6_e2m3', 'mxfp6_e3m2', 'mxfp4', 'mxint8'],
)
@pytest.mark.parametrize('axis', [None, -1])
def test_mx_is_ml_dtypes_in_blocks_of_32(name, axis):
  x = wide(1, (70, 80))
  rows = x if axis is None else x.T
  element = name.split('_')[-1]
  expected = np.zeros_like(rows)
  for i, row in enumerate(rows):
    for j in range(0, row.size, 32):
      block = row[j : j + 32].astype(np.float64)
      top = np.floor(np.log2(np.abs(block).max()))
      if name == 'mxint8':
        scale = 2.0**top
        rounded = np.clip(np.rint(block / scale * 64), -127, 127) / 64
      else:
        scale = 2.0 ** (top - FLOATS[element][2])
        rounded = as_dtype((block / scale).astype(np.float32), element)
      expected[i, j : j + 32] = rounded * scale
  got = fit_apply(name, x, 8, axis)
  np.testing.assert_array_equal(got, expected if axis is None else expected.T)


def test_codes_of_fp8_are_the_bits_of_ml_dtypes():
  quantizer = quantizers.by_name('fp8_e4m3')
  x = np.linspace(-448, 448, 3001).astype(np.float32)
  codes = np.asarray(quantizer.encode(x, {'scale': jnp.float32(1)}, 8))
  bits = x.astype(ml_dtypes.float8_e4m3fn).view(np.uint8).astype(int)
  np.testing.assert_array_equal(np.abs(codes), bits & 0x7F)
  np.testing.assert_array_equal(codes < 0, (bits > 0x80) & (bits != 0x80))
