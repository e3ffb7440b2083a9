"""The quantizer of images, whose levels are the values of bytes."""

import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Params, Quantizer
from qgan_jax.quantizers.ranges import finite
from qgan_jax.quantizers.uniform import (
  codes_affine,
  fake_quantize,
  round_to_codes,
)


def pixels() -> Quantizer:
  """x̂ is the nearest of 2ⁿ equally spaced levels from −1 to 1.

  At 8 bits these are k / 127.5 − 1, the values of an image's bytes k. Each of
  them is preserved, to the last digit of float32. No quantizer with a level at
  0 can do that: 0 lies halfway between the bytes 127 and 128, so all other
  bytes would lie halfway between two levels, too.
  Gradients are straight-through up to half a step beyond the ends. The range is
  fixed, so there is nothing to fit.

  Returns:
    A `Quantizer` for 1 to 16 bits, without params.
  """

  def grid(bits: Array) -> tuple[Array, ...]:
    """(scale, zero_point, qmin, qmax)."""
    qmin, qmax = codes_affine(bits)
    return 2 / qmax, qmax / 2, qmin, qmax

  def fit(x: Array, bits: Array) -> Params:
    del x, bits
    return {}

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del params, key
    return fake_quantize(x, *grid(bits))

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del params
    return round_to_codes(x, *grid(bits)).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del params
    scale, zero_point, _, _ = grid(bits)
    return finite((codes.astype(jnp.float32) - zero_point) * scale)

  return Quantizer(fit, None, apply, encode, decode)
