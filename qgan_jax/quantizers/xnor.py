"""Binary weights: one bit and one scale."""

import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import mean_magnitude
from qgan_jax.quantizers.straight_through import straight_through


def xnor(*, axis: Axis = None) -> Quantizer:
  """x̂ = α · sign(x), α = mean|x|, the least squares scale of signs.

  Rastegari et al., https://arxiv.org/abs/1603.05279: the weights of BWN, and
  the weights and activations of XNOR-Net (activations there have an α for every
  window, here one for a tensor). The gradient is g · (1/N + α · 1[|x| ≤ 1]),
  where N values share an α. sign(0) is 1. `bits` is ignored: the definition has
  one bit.

  Args:
    axis: the axis of which each index has its own α, in the paper that of the
      output channels; None for one.

  Returns:
    A `Quantizer` of one bit.
  """

  def fit(x: Array, bits: Array) -> Params:
    del bits
    return {'scale': mean_magnitude(x, axis)}

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del params, bits
    return (x >= 0).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del bits
    return (2.0 * codes.astype(jnp.float32) - 1.0) * params['scale']

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    share = params['scale'].size / max(1, x.size)
    slope = share + params['scale'] * (jnp.abs(x) <= 1)
    return straight_through(x, y, slope)

  return Quantizer(fit, None, apply, encode, decode, fixed_bits=1)
