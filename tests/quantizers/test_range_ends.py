"""The ends of the range that parameters were made from are inside of it."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import quantizers

WIDTHS = np.array([1, 2, 3, 4, 8, 16], np.float32)
# Those with a range that comes from somewhere: not a grid's, nor [0, 1].
NAMES = [
  name
  for name in quantizers.NAMES
  if name not in ('grid', 'dorefa_activation')
  and quantizers.by_name(name).from_range is not None
]
_ENDS = st.one_of(st.floats(-1e4, 1e4, width=32), st.floats(-2, 2, width=32))


def _range(pair):
  low, high = sorted(pair)
  return np.float32(low), np.float32(high)


def _is_wide(pair):
  """Whether float32 has 2^12 numbers in the range, or it is symmetric."""
  low, high = pair
  return high - low > 2.0**-12 * max(abs(low), abs(high), 1e-3)


RANGES = st.one_of(
  st.tuples(_ENDS, _ENDS).map(_range),
  _ENDS.map(lambda x: _range((-x, x))),
  _ENDS.map(lambda x: _range((0.0, x))),
).filter(_is_wide)


def gradients(name, low, high, bits):
  """(∂x̂/∂x, {param: ∂x̂/∂param}) at both ends, [2] each."""
  quantizer = quantizers.by_name(name)
  params = quantizer.from_range(low, high, bits)

  def slopes(x):
    return jax.grad(
      lambda x, params: quantizer.apply(x[None], params, bits)[0], (0, 1)
    )(x, params)

  return jax.vmap(slopes)(jnp.stack([low, high]))


@functools.partial(jax.jit, static_argnums=0)
def compiled(name, low, high):
  return jax.vmap(lambda bits: gradients(name, low, high, bits))(WIDTHS)


def check(name, bits, by_x, by_params):
  # EWGS scales a gradient by how far a value was rounded, at most 1/1000.
  atol = 1e-3 if name == 'ewgs' else 0
  np.testing.assert_allclose(by_x, 1, atol=atol, err_msg=f'{bits} bits')
  if 'offset' in by_params:
    np.testing.assert_array_equal(by_params['offset'], 0)
  if 'scale' in by_params and quantizers.by_name(name).learned and bits > 1:
    # Inside, a scale's slope is a rounding error in steps, at most a half (and
    # what float32 leaves of it at 16 bits); outside, a code of at least 1.
    greatest = 2.0 ** (bits - 1)
    rate = 1 / np.sqrt(greatest - (0.5 if name == 'seq' else 1))
    if name == 'lsq':  # Of codes without a sign, a smaller one.
      rate = max(rate, 1 / np.sqrt(2 * greatest - 1))
    assert (np.abs(by_params['scale']) <= 0.55 * rate).all()
  if name == 'apot' and bits > 1:
    assert (np.abs(by_params['clip']) <= 0.5).all()


@pytest.mark.parametrize('name', NAMES)
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(bounds=RANGES)
def test_both_ends_are_inside_as_compiled(name, bounds):
  by_x, by_params = jax.tree.map(np.asarray, compiled(name, *bounds))
  for i, bits in enumerate(WIDTHS):
    row = {key: value[i] for key, value in by_params.items()}
    check(name, bits, by_x[i], row)


@pytest.mark.parametrize('name', NAMES)
def test_both_ends_are_inside_one_operation_at_a_time(name):
  rng = np.random.default_rng(0)
  with jax.disable_jit():
    for bits in WIDTHS[:5]:
      low, high = np.sort(rng.standard_normal(2)).astype(np.float32)
      for bounds in ((low, high), (-abs(high), abs(high))):
        by_x, by_params = gradients(name, *map(jnp.float32, bounds), bits)
        check(name, bits, by_x, by_params)


def test_a_penalty_sees_black_and_white_pixels_through_pact():
  """∂D/∂x at ±α, where most of an image's pixels are, as in float."""
  rng = np.random.default_rng(0)
  images = jnp.float32(rng.choice([-1.0, 1.0], (3, 16)))
  v = jnp.float32(rng.standard_normal((16, 5)))
  quantizer = quantizers.by_name('pact')
  params = quantizer.fit(images, 8)

  def squared_norm(quantize, v):
    def d(x):
      return jnp.sum(jnp.tanh(quantize(x) @ v))

    return jnp.sum(jnp.square(jax.grad(d)(images)))

  def quantize(x):
    return quantizer.apply(x, params, 8)

  both = jax.value_and_grad(squared_norm, 1)
  # All of them are levels, so that nothing else differs.
  np.testing.assert_array_equal(quantize(images), images)
  for got, expected in zip(
    both(quantize, v), both(lambda x: x, v), strict=True
  ):
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
