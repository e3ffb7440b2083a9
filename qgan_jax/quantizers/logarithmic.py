"""Logarithmic quantization: powers of two and zero."""

import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  floor_log2,
  largest,
  not_of_nothing,
  positive,
  power_of_two,
  tensor_range,
)
from qgan_jax.quantizers.straight_through import straight_through

_MAX_BITS = 9  # 2⁸ − 1 exponents; of normal float32, 254.


def _round_log2(x: Array) -> Array:
  """round(log2 x) of positive float32; int32."""
  mantissa, exponent = jnp.frexp(x)
  return exponent - (mantissa < 2**-0.5)


def logarithmic(*, axis: Axis = None) -> Quantizer:
  """x̂ = sign(x) · 2^round(log2|x|), with 2ⁿ⁻¹ − 1 exponents and zero.

  Miyashita et al., https://arxiv.org/abs/1603.01025. The largest exponent is
  round(log2 max|x|). Values below half of the least power are 0, as in Zhou et
  al. (INQ), https://arxiv.org/abs/1702.03044. Straight-through up to the end of
  the largest power's cell. One bit, which has no exponent to choose, has the
  two levels ± half the largest power.

  Args:
    axis: the axis of which each index has its own largest exponent; None for
      one.

  Returns:
    A `Quantizer` for 1 to 9 bits: float32 has no more exponents.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    top = largest(low, high)
    found = _round_log2(not_of_nothing(positive(top), top, exponents(bits)))
    return {'exponent': jnp.clip(found, -126, 127).astype(jnp.float32)}

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  def exponents(bits: Array) -> Array:
    half = jnp.exp2(jnp.asarray(bits, jnp.float32) - 1)
    return half.round().astype(jnp.int32) - 1

  def encode(x: Array, params: Params, bits: Array) -> Array:
    x = x.astype(jnp.float32)
    magnitude = positive(jnp.abs(x))
    number = exponents(bits)
    least = params['exponent'].astype(jnp.int32) - number + 1
    index = jnp.clip(_round_log2(magnitude) - least + 1, 1, number)
    zero = (floor_log2(magnitude) < least - 1) | (x == 0)
    codes = jnp.where(zero, 0, index * jnp.sign(x).astype(jnp.int32))
    return jnp.where(number < 1, -(x < 0).astype(jnp.int32), codes)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    number = exponents(bits)
    top = params['exponent'].astype(jnp.int32)
    many = jnp.sign(codes) * power_of_two(top - number + jnp.abs(codes))
    one = (2 * codes + 1) * power_of_two(top - 1)
    return jnp.where(number < 1, one, many).astype(jnp.float32)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    end = 2.0**0.5 * power_of_two(params['exponent'])
    return straight_through(x, y, jnp.abs(x) <= end)

  return Quantizer(fit, from_range, apply, encode, decode, most_bits=_MAX_BITS)
