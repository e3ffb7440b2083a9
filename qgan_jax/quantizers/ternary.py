"""Ternary weights: −α, 0 and α."""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import finite, mean, mean_magnitude
from qgan_jax.quantizers.straight_through import straight_through


def ternary(*, axis: Axis = None) -> Quantizer:
  """x̂ = α · sign(x) where |x| > Δ, and 0 elsewhere.

  Li et al. (TWN), https://arxiv.org/abs/1605.04711, eqs. 4 to 6: Δ = 0.7 ·
  mean|x|, and α is the mean of the magnitudes above Δ. Straight-through. `bits`
  is ignored: the definition has three levels.

  Args:
    axis: the axis of which each index has its own Δ and α; None for one of
      each.

  Returns:
    A `Quantizer` of three levels, stored in two bits.
  """

  def fit(x: Array, bits: Array) -> Params:
    del bits
    threshold = 0.7 * mean_magnitude(x, axis)
    magnitudes = jnp.abs(jax.lax.stop_gradient(x).astype(jnp.float32))
    above = magnitudes > threshold
    share = mean(above, axis)
    scale = mean(jnp.where(above, magnitudes, 0.0), axis)
    # Of nothing above it there is no mean.
    scale = jnp.where(share > 0, scale / jnp.where(share > 0, share, 1.0), 0.0)
    return {'threshold': threshold, 'scale': finite(scale)}

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del bits
    above = jnp.abs(x.astype(jnp.float32)) > params['threshold']
    return jnp.where(above, jnp.sign(x), 0).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del bits
    return codes.astype(jnp.float32) * params['scale']

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    return straight_through(x, y, jnp.ones(()))

  return Quantizer(fit, None, apply, encode, decode, fixed_bits=2)
