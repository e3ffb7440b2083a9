"""Uniform quantization at the scale of least squared error.

To clip a few large values allows finer steps for all others: at 2 to 4 bits the
range of least squared error is a fraction of the range from least to greatest
value.
"""

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  largest,
  not_of_nothing,
  positive,
  reduction_axes,
  tensor_range,
)
from qgan_jax.quantizers.uniform import (
  codes_symmetric,
  round_to_codes,
  rounding,
)

# Of the largest magnitude, a factor of √½ apart: what 1 bit, and a tensor
# with far outliers, still need is among them.
_CLIPS = 2.0 ** (-np.arange(12, dtype=np.float32) / 2)
# About the best of those, nearly to its neighbours.
_FINER = 2.0 ** (np.arange(-6, 7, dtype=np.float32) / 14)


def least_error_scale(
  x: Array,
  zero_point: Array,
  qmin: Array,
  qmax: Array,
  axis: Axis = None,
) -> Array:
  """The scale of a uniform grid with the least mean squared error.

  It takes the best of twelve clips of the range, then the best of thirteen
  values around it. Then it computes the least squares scale for the codes
  found, s = Σ x·z / Σ z² with z = q − zero_point, which never raises the error.
  On Gaussian and Laplacian tensors, the error is within 1 % of the least up to
  4 bits, and within 4 % up to 8.

  Args:
    x: a tensor of any shape and float dtype.
    zero_point: the code of the real value 0.
    qmin: least code.
    qmax: greatest code.
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    The scale, float32.
  """
  axes, keep = reduction_axes(x, axis), axis is not None
  top = positive(largest(*tensor_range(x, axis)))
  # In units of the largest, whose square does not overflow.
  x = jax.lax.stop_gradient(x).astype(jnp.float32) / top
  reach = jnp.maximum(qmax - zero_point, 1.0)

  def error(scale: Array) -> Array:
    z = round_to_codes(x, scale, zero_point, qmin, qmax) - zero_point
    return jnp.sum(jnp.square(x - scale * z), axes, keepdims=keep)

  def best(scale: Array, factors: Array) -> Array:
    scales = jax.vmap(lambda factor: factor * scale)(factors)
    choice = jnp.argmin(jax.vmap(error)(scales), axis=0, keepdims=True)
    return jnp.take_along_axis(scales, choice, axis=0)[0]

  scale = best(
    best(jnp.ones_like(top) / reach, jnp.asarray(_CLIPS)), jnp.asarray(_FINER)
  )
  z = round_to_codes(x, scale, zero_point, qmin, qmax) - zero_point
  product = jnp.sum(x * z, axes, keepdims=keep)
  square = jnp.sum(jnp.square(z), axes, keepdims=keep)
  scale = jnp.where(product > 0, product / jnp.maximum(square, 1e-9), scale)
  return positive(scale * top)


def uniform_mse(*, axis: Axis = None) -> Quantizer:
  """`uniform` at the scale of least mean squared error.

  A range alone does not tell where to clip, so params are fitted to every
  tensor.

  Args:
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """

  def fit(x: Array, bits: Array) -> Params:
    codes = codes_symmetric(bits)
    scale = least_error_scale(x, *codes, axis)
    top = largest(*tensor_range(x, axis))
    return {'scale': not_of_nothing(scale, top, codes[-1])}

  return rounding(fit, None, lambda params, bits: codes_symmetric(bits))
