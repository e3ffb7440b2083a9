"""QGAN's quantizer: a line fitted by expectation-maximization."""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import largest, mean, positive, tensor_range
from qgan_jax.quantizers.uniform import codes_affine, round_to_codes, rounding

_ITERATIONS = 12


def qgan_em(*, axis: Axis = None) -> Quantizer:
  """x̂ = αz + β with z ∈ {0 … 2ⁿ − 1}, fitted to the tensor.

  Wang et al. (QGAN), https://arxiv.org/abs/1901.08263. The E step computes
  codes, z = clip(round((x − β) / α)); the M step computes the line of least
  squares through them, α = cov(x, z) / var(z) and β = mean(x) − α · mean(z).
  Both are repeated twelve times, starting from the tensor's least and greatest
  value. All 2ⁿ levels are used, whereas a symmetric quantizer of 2 bits has
  three.

  `params` holds α as 'scale' and −β / α, a real number, as 'zero_point', so
  that x̂ = scale · (z − zero_point). In float32 this loses precision if the
  values are much farther from 0 than from each other.

  Args:
    axis: the axis of which each index has its own line; None for one line.

  Returns:
    A `Quantizer` for 1 to 16 bits. From a range there is nothing to fit, and
    the starting line is used.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    _, qmax = codes_affine(bits)
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    scale = positive(high / qmax - low / qmax)
    return {'scale': scale, 'zero_point': -low / scale}

  def fit(x: Array, bits: Array) -> Params:
    low, high = tensor_range(x, axis)
    unit = positive(largest(low, high))
    x = jax.lax.stop_gradient(x).astype(jnp.float32) / unit
    params = from_range(low / unit, high / unit, bits)
    scale, zero_point = params['scale'], params['zero_point']
    centre = mean(x, axis)
    for _ in range(_ITERATIONS):
      z = round_to_codes(x, scale, zero_point, *codes_affine(bits))
      middle = mean(z, axis)
      covariance = mean((x - centre) * (z - middle), axis)
      variance = mean(jnp.square(z - middle), axis)
      slope = covariance / jnp.maximum(variance, 1e-9)
      # One code for all values says nothing about the slope.
      usable = (variance > 1e-9) & (slope > 1e-12)
      slope = jnp.where(usable, slope, scale)
      zero_point = jnp.where(usable, middle - centre / slope, zero_point)
      scale = slope
    return {'scale': positive(scale * unit), 'zero_point': zero_point}

  return rounding(
    fit,
    from_range,
    lambda params, bits: (params['zero_point'], *codes_affine(bits)),
  )
