"""Small floating-point numbers, and FP8 with one scale for a tensor."""

from typing import NamedTuple

import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  ceil_log2,
  finite,
  floor_log2,
  largest,
  positive,
  power_of_two,
  tensor_range,
)
from qgan_jax.quantizers.straight_through import straight_through


class FloatFormat(NamedTuple):
  """A number format of a sign, an exponent and a mantissa.

  Attributes:
    bits: of the whole number.
    mantissa_bits: of the fraction.
    least_exponent: of a normal number; below it, the step stays the same.
    greatest_exponent: of a number, `emax` in the MX specification.
    greatest: the largest number; larger values saturate to it.
  """

  bits: int
  mantissa_bits: int
  least_exponent: int
  greatest_exponent: int
  greatest: float


E4M3 = FloatFormat(8, 3, -6, 8, 448.0)
E5M2 = FloatFormat(8, 2, -14, 15, 57344.0)
E3M2 = FloatFormat(6, 2, -2, 4, 28.0)
E2M3 = FloatFormat(6, 3, 0, 2, 7.5)
E2M1 = FloatFormat(4, 1, 0, 2, 6.0)
# The INT8 elements of MX formats: integers times 1/64, which is a float format
# with a single exponent.
INT8 = FloatFormat(8, 6, 0, 0, 127 / 64)


def to_float_codes(x: Array, number: FloatFormat) -> Array:
  """The code of the nearest number: the bits of its magnitude, with x's sign.

  Ties go to the even mantissa; values beyond the greatest number saturate.

  Args:
    x: float32 of any shape.
    number: the format.

  Returns:
    int32 of x's shape, within ±(2^(bits − 1) − 1), ascending with x.
  """
  magnitude = jnp.minimum(jnp.abs(x), number.greatest)
  # Of zero there is no logarithm; it ends at the least exponent.
  normal = jnp.maximum(magnitude, jnp.finfo(jnp.float32).tiny)
  exponent = jnp.maximum(floor_log2(normal), number.least_exponent)
  steps = jnp.round(
    magnitude / power_of_two(exponent - number.mantissa_bits)
  ).astype(jnp.int32)
  binade = exponent - number.least_exponent
  code = (binade << number.mantissa_bits) + steps
  return jnp.where(x < 0, -code, code)


def from_float_codes(codes: Array, number: FloatFormat) -> Array:
  """The numbers of codes that `to_float_codes` returned, float32."""
  size = 1 << number.mantissa_bits
  code = jnp.abs(codes)
  binade = jnp.maximum(code // size - 1, 0)
  unit = power_of_two(binade + number.least_exponent - number.mantissa_bits)
  return jnp.sign(codes) * (code - binade * size) * unit


def fp8(number: FloatFormat, *, axis: Axis = None) -> Quantizer:
  """Eight-bit floats, times one power of two for a tensor.

  Micikevicius et al., https://arxiv.org/abs/2209.05433: E4M3, whose greatest
  number is 448, for weights and activations, and E5M2, whose greatest is 57344,
  for gradients. The scale is the least power of two that brings the tensor's
  largest magnitude into the format. So division by it and multiplication are
  exact, and x̂ / scale is bit for bit what `ml_dtypes` rounds x / scale to.
  Straight-through inside the range. `bits` is ignored: the definition has 8.

  Args:
    number: E4M3 or E5M2.
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    A `Quantizer` of eight bits.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    del bits
    wanted = positive(largest(low, high) / number.greatest)
    return {'scale': power_of_two(ceil_log2(wanted))}

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del bits
    return to_float_codes(x.astype(jnp.float32) / params['scale'], number)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del bits
    return finite(from_float_codes(codes, number) * params['scale'])

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    inside = jnp.abs(x) <= number.greatest * params['scale']
    return straight_through(x, y, inside)

  return Quantizer(
    fit, from_range, apply, encode, decode, fixed_bits=number.bits
  )
