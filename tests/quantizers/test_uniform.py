import functools

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import quantizers

# What a bit width means to these; `grid` takes an exponent.
BY_BITS = ('uniform', 'affine', 'power_of_two_scale')
FLOATS = st.floats(-1e6, 1e6, width=32)
# Of one shape: every other would be compiled anew.
TENSORS = st_numpy.arrays(np.float32, 24, elements=FLOATS)
WIDTHS = st.integers(1, 16)
quick = hypothesis.settings(max_examples=60, deadline=None)


@functools.partial(jax.jit, static_argnums=0)
def fit_apply_encode(name, x, bits):
  quantizer = quantizers.by_name(name)
  params = quantizer.fit(x, bits)
  return quantizer.apply(x, params, bits), quantizer.encode(x, params, bits)


def fit_apply(name, x, bits):
  return np.asarray(fit_apply_encode(name, x, jnp.float32(bits))[0])


def symmetric_reference(x, scale, bits):
  """Equation 12 of Jacob et al. in float64, given the scale."""
  x = np.asarray(x, np.float64)
  if bits == 1:
    codes = np.clip(np.rint(x / scale - 0.5), -1, 0)
    return (codes + 0.5) * scale
  qmax = 2 ** (bits - 1) - 1
  return np.clip(np.rint(x / scale), -qmax, qmax) * scale


def largest(x):
  return float(np.max(np.abs(x.astype(np.float64))))


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 8, 12, 16])
@pytest.mark.parametrize('seed', [0, 1])
def test_uniform_is_jacobs_formula(bits, seed):
  x = np.random.RandomState(seed).randn(50, 7).astype(np.float32)
  scale = largest(x) / max(2 ** (bits - 1) - 1, 1)
  got = fit_apply('uniform', x, bits)
  expected = symmetric_reference(x, scale, bits)
  # Float32 may fall on the other side of a rounding boundary at 16 bits.
  wrong = np.abs(got - expected) > 1e-5
  assert wrong.mean() < 0.01
  assert np.abs(got - expected).max() <= scale * 1.001


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 8])
def test_affine_is_jacobs_formula(bits):
  x = np.random.RandomState(2).rand(60).astype(np.float32) * 3 - 1
  low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
  scale = (high - low) / (2**bits - 1)
  zero_point = np.rint(-low / scale)
  codes = np.clip(np.rint(x / scale + zero_point), 0, 2**bits - 1)
  got = fit_apply('affine', x, bits)
  np.testing.assert_allclose(got, (codes - zero_point) * scale, atol=1e-5)


@pytest.mark.parametrize('bits', [2, 3, 4, 8, 16])
def test_power_of_two_scale_is_the_formula(bits):
  x = np.random.RandomState(3).randn(200).astype(np.float32)
  exponent = np.ceil(np.log2(largest(x) / (2 ** (bits - 1) - 1)))
  got = fit_apply('power_of_two_scale', x, bits)
  expected = np.rint(x.astype(np.float64) / 2**exponent) * 2**exponent
  np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_power_of_two_scale_keeps_an_exact_power():
  # max|x| / qmax = 1 exactly: e = 0, and not 1 by a rounding of log2.
  x = jnp.array([127.0, -3.0])
  params = quantizers.power_of_two_scale().fit(x, 8)
  assert params['scale'] == 1.0


EXPONENTS = np.arange(-126, 127)
LAST_CODE = 2**31 - 128  # The last int32 that float32 holds.


@jax.jit
def all_grids(x):
  """Q(x), codes and decoded codes for each of the exponents."""
  quantizer = quantizers.grid()

  def one(b):
    params = quantizer.fit(x, b)
    codes = quantizer.encode(x, params, b)
    y = quantizer.apply(x, params, b)
    return params['scale'], y, codes, quantizer.decode(codes, params, b)

  return jax.vmap(one)(jnp.asarray(EXPONENTS, jnp.float32))


def exact_grid(x, b):
  """The formula in float64, which holds each of its terms exactly."""
  codes = np.rint(np.ldexp(x.astype(np.float64), -b))
  limit = float(np.finfo(np.float32).max)
  return codes, np.clip(np.ldexp(codes, b), -limit, limit)


def test_grid_is_the_formula_for_every_exponent():
  rng = np.random.default_rng(0)
  # All of float32's normal numbers, and some halves of steps.
  x = np.ldexp(rng.uniform(0.5, 1, 2000), rng.integers(-124, 129, 2000))
  x = np.concatenate([x, np.ldexp(np.arange(1.0, 16), -2), [0, 0.3, 1, 2**20]])
  x = np.concatenate([x, -x]).astype(np.float32)
  scales, ys, codes, decoded = map(np.asarray, all_grids(x))
  np.testing.assert_array_equal(scales, np.ldexp(1.0, EXPONENTS))
  for i, b in enumerate(EXPONENTS):
    expected, y = exact_grid(x, b)
    np.testing.assert_array_equal(ys[i], y, err_msg=str(b))
    fits = np.abs(expected) <= LAST_CODE
    assert fits.any()
    np.testing.assert_array_equal(
      codes[i], np.clip(expected, -LAST_CODE, LAST_CODE)
    )
    np.testing.assert_array_equal(decoded[i][fits], y[fits])


@quick
@hypothesis.given(
  st_numpy.arrays(
    np.float32,
    24,
    # XLA flushes what is below the normal numbers to zero on some devices.
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False,
                       allow_subnormal=False),
  ),
  st.sampled_from(EXPONENTS),
)  # fmt: skip
def test_grid_is_the_formula_for_any_float(x, b):
  _, y = exact_grid(x, b)
  np.testing.assert_array_equal(fit_apply('grid', x, b), y)


def test_grid_passes_every_gradient():
  x = jnp.array([1e38, -3.0, 0.2, 0.0])
  quantizer = quantizers.grid()
  for b in (-126, -20, 0, 126):
    params = quantizer.fit(x, b)
    gradient = jax.grad(lambda x, p=params: quantizer.apply(x, p, 0).sum())(x)
    np.testing.assert_array_equal(gradient, 1)


@pytest.mark.parametrize('b', [127, -126.5, np.inf, np.nan])
def test_grid_refuses_a_step_that_float32_does_not_hold(b):
  with pytest.raises(ValueError, match='from -126 to 126'):
    quantizers.grid().fit(jnp.ones(3), b)


def test_power_of_two_scale_at_both_ends_of_float32():
  quantizer = quantizers.power_of_two_scale()
  for exponent in (-124, -120, 124, 127):
    x = np.ldexp(np.array([1.0, 0.3, -0.7], np.float32), exponent)
    for bits in (2, 4, 8):
      scale = float(quantizer.fit(jnp.asarray(x), bits)['scale'])
      mantissa, _ = np.frexp(scale)
      assert mantissa == 0.5
      # Neither the step nor its reciprocal may leave the normal numbers.
      assert 2.0**-126 <= scale <= 2.0**126
      qmax = 2 ** (bits - 1) - 1
      expected = np.rint(x.astype(np.float64) / scale).clip(-qmax, qmax) * scale
      np.testing.assert_array_equal(
        fit_apply('power_of_two_scale', x, bits), expected.astype(np.float32)
      )


@quick
@hypothesis.given(TENSORS, st.floats(-12, 12, width=32))
def test_grid_takes_any_real_exponent(x, b):
  step = 2.0 ** float(b)
  hypothesis.assume(np.abs(x).max() / step < 2**20)
  y, codes = fit_apply_encode('grid', x, jnp.float32(b))
  # The nearest code to the exact quotient, but for what float32 rounds off
  # it: four half-units in the last place (2^b, x / 2^b, and their margins).
  exact = x.astype(np.float64) / step
  slack = 2.0**-22 * np.abs(exact)
  assert (np.abs(np.asarray(codes) - exact) <= 0.5 + slack).all()
  np.testing.assert_allclose(y, np.asarray(codes) * step, rtol=1e-6)


def test_grid_of_8_puts_every_weight_of_a_network_on_zero():
  weights = np.random.RandomState(0).randn(1000) * 0.02
  assert not fit_apply('grid', weights, 8.0).any()


@quick
@hypothesis.given(x=TENSORS, bits=WIDTHS)
def test_affine_keeps_zero_exact(x, bits):
  quantizer = quantizers.uniform(symmetric=False)
  params = quantizer.fit(jnp.asarray(x), bits)
  assert float(quantizer.apply(jnp.zeros(()), params, bits)) == 0.0


def test_straight_through_inside_the_range_and_nothing_outside():
  x = jnp.array([-3.0, -1.0, 0.2, 1.0, 1.4, 3.0])
  quantizer = quantizers.uniform()
  params = quantizer.from_range(jnp.float32(-1.0), jnp.float32(1.0), 3)
  weights = jnp.arange(1.0, 7.0)
  gradient = jax.grad(
    lambda x: jnp.sum(weights * quantizer.apply(x, params, 3))
  )(x)
  # scale = 1/3, qmax = 3: the range ends half a step outside ±1.
  np.testing.assert_array_equal(gradient, [0, 2, 3, 4, 0, 0])


@pytest.mark.parametrize('name', ['uniform', 'ewgs', 'stochastic', 'affine'])
def test_the_largest_values_pass_their_gradient_however_compiled(name):
  quantizer = quantizers.by_name(name)

  @jax.jit
  def gradient(x, bits, key):
    params = quantizer.fit(x, bits)
    return jax.grad(lambda x: quantizer.apply(x, params, bits, key).sum())(x)

  for seed in range(200):
    x = np.random.RandomState(seed).randn(64).astype(np.float32)
    for bits in (1.0, 2.0, 8.0):
      g = np.asarray(gradient(x, bits, jax.random.key(seed)))
      assert (g != 0).all(), (seed, bits)


@pytest.mark.parametrize('name', [*BY_BITS, 'grid'])
def test_gradient_penalty_is_the_straight_through_one(name):
  """∂/∂w of ½‖∂D/∂x‖² for D(x) = v · tanh(x Q(w)), by hand."""
  quantizer = quantizers.by_name(name)
  bits = -3.0 if name == 'grid' else 4
  rng = np.random.RandomState(0)
  x, w, v = rng.randn(6), rng.randn(6, 5) * 0.5, rng.randn(5)
  params = quantizer.fit(jnp.asarray(w, jnp.float32), bits)

  def penalty(w):
    def d(x):
      q = quantizer.apply(w, params, bits)
      return jnp.dot(jnp.tanh(x @ q), v)

    return 0.5 * jnp.sum(jnp.square(jax.grad(d)(jnp.asarray(x))))

  got = jax.grad(penalty)(jnp.asarray(w, jnp.float32))
  # With ∂q/∂w = 1: g_i = Σ_j q_ij v_j s_j, s = 1 − tanh², s' = −2 tanh s.
  q = np.asarray(
    quantizer.apply(jnp.asarray(w, jnp.float32), params, bits), np.float64
  )
  t = np.tanh(x @ q)
  s = 1 - t**2
  g = q @ (v * s)
  expected = np.outer(g, v * s) + np.outer(x, (g @ q) * v * -2 * t * s)
  np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-5)
