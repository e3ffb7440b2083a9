"""Learned step sizes: LSQ, LSQ+ with an offset, and SEQ without a zero.

All round x to s · (q − z) + β with q = clip(round((x − β) / s + z)). They
differ in the codes, in what is learned, and in the initial values. z is 0, or
−½ where zero is not a level.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.mse import least_error_scale
from qgan_jax.quantizers.ranges import (
  deviation,
  finite,
  is_within,
  largest,
  magnitude,
  mean,
  mean_magnitude,
  positive,
  step_size,
  tensor_range,
)
from qgan_jax.quantizers.straight_through import straight_through_learned

# The zero point, the lowest code and the highest code.
CodeRange = tuple[Array, Array, Array]


def _two_complement(bits: Array) -> CodeRange:
  """Codes −2ⁿ⁻¹ … 2ⁿ⁻¹ − 1; one bit has no room for a zero between them."""
  half = jnp.exp2(jnp.asarray(bits, jnp.float32) - 1).round()
  return jnp.where(half < 2, -0.5, 0.0), -half, half - 1


def _signed_or_not(params: Params, bits: Array) -> CodeRange:
  """Codes of both signs, or 0 … 2ⁿ − 1 where params['signed'] is 0."""
  zero_point, qmin, qmax = _two_complement(bits)
  signed = params['signed'] > 0
  return (
    jnp.where(signed, zero_point, 0.0),
    jnp.where(signed, qmin, 0.0),
    jnp.where(signed, qmax, 2 * qmax + 1),
  )


def _is_signed(low: Array, high: Array) -> Array:
  """1.0 where a range has negative values; of nothing but zeros, it may."""
  return ((jnp.min(low) < 0) | (jnp.max(high) <= 0)).astype(jnp.float32)


def _step(params: Params) -> Array:
  """The scale, positive wherever gradient descent took it."""
  return step_size(params['scale'])


def _learned_rounding(
  fit: Callable[[Array, Array], Params],
  from_range: Callable[[Array, Array, Array], Params],
  codes_of: Callable[[Params, Array], CodeRange],
  learned: tuple[str, ...],
) -> Quantizer:
  def offset(params: Params) -> Array | float:
    # In steps: added to a code, it is the same however XLA fuses.
    return params['offset'] / _step(params) if 'offset' in learned else 0.0

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    zero_point, _, _ = codes_of(params, bits)
    q = codes.astype(jnp.float32) - zero_point
    return finite((q + offset(params)) * _step(params))

  def quantize(x: Array, params: Params, bits: Array) -> tuple[Array, Array]:
    """(codes, x in steps from the offset), float32."""
    zero_point, qmin, qmax = codes_of(params, bits)
    steps = x.astype(jnp.float32) / _step(params) - offset(params)
    return jnp.clip(jnp.round(steps + zero_point), qmin, qmax), steps

  def encode(x: Array, params: Params, bits: Array) -> Array:
    return quantize(x, params, bits)[0].astype(jnp.int32)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    zero_point, qmin, qmax = codes_of(params, bits)
    codes, steps = quantize(x, params, bits)
    q = codes - zero_point
    # Without a zero, the cells of the outermost levels are inside too.
    margin = jnp.abs(zero_point)
    # In units of x: in steps, an end of the range is a difference of numbers
    # that are large where the offset is.
    low, high = (
      end * _step(params) + params.get('offset', 0.0)
      for end in (qmin - zero_point - margin, qmax - zero_point + margin)
    )
    inside = is_within(x, low, high)
    # N values share a scale.
    shared = x.size / params['scale'].size
    rate = jax.lax.rsqrt(jnp.maximum(shared * (qmax - zero_point), 1e-6))
    slopes = {'scale': jnp.where(inside, q - steps, q)}
    trained = {'scale': magnitude(params['scale'])}
    if 'offset' in learned:
      slopes['offset'] = jnp.where(inside, 0.0, 1.0)
      trained['offset'] = params['offset']
    return straight_through_learned(
      x,
      # So the rate is a factor of a gradient's sum, not of its every term.
      {name: rate * value for name, value in trained.items()},
      decode(codes, params, bits),
      inside,
      slopes,
    )

  return Quantizer(fit, from_range, apply, encode, decode, learned)


def lsq(*, axis: Axis = None) -> Quantizer:
  """x̂ = s · round(clip(x / s, −Qn, Qp)) with a learned scale s.

  Esser et al. (LSQ), https://arxiv.org/abs/1902.08153. Codes are −2ⁿ⁻¹ … 2ⁿ⁻¹ −
  1. For a tensor that had no negative value when its params were made (such as
  a layer's input after a ReLU) they are 0 … 2ⁿ − 1; params['signed'] stores
  which, and never changes. ∂x̂/∂s is round(x / s) − x / s inside the range and
  −Qn or Qp outside, times 1 / √(N · Qp), where N is the number of values that
  share a scale; for activations, N counts those of the whole batch.

  s starts at the least squared error. The paper starts it at 2 · mean|x| / √Qp.
  At 8 bits this is 0.14 standard deviations of a Gaussian weight, which uses 51
  of the 256 codes, and training does not bring it back.

  The paper starts at 2 bits. Here one bit has the levels ±s / 2, and passes
  gradients where |x| ≤ s.

  Args:
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    A `Quantizer` for 1 to 16 bits. From a range, s starts as the uniform step
    over it.
  """

  def fit(x: Array, bits: Array) -> Params:
    params = {'signed': _is_signed(*tensor_range(x))}
    codes = _signed_or_not(params, bits)
    return {'scale': least_error_scale(x, *codes, axis)} | params

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    params = {'signed': _is_signed(low, high)}
    zero_point, _, qmax = _signed_or_not(params, bits)
    reach = qmax + 2 * jnp.abs(zero_point)  # 1 at one bit.
    return {'scale': positive(largest(low, high) / reach)} | params

  return _learned_rounding(fit, from_range, _signed_or_not, ('scale', 'signed'))


def lsq_plus(*, axis: Axis = None) -> Quantizer:
  """x̂ = s · round(clip((x − β) / s, −Qn, Qp)) + β; s and β are learned.

  Bhalgat et al. (LSQ+), https://arxiv.org/abs/2004.09576. ∂x̂/∂s is that of
  `lsq`; ∂x̂/∂β is 0 inside the range and 1 outside; both are multiplied by 1 /
  √(N · Qp). Codes are −2ⁿ⁻¹ … 2ⁿ⁻¹ − 1. Fitted to a tensor (weights), s starts
  at max(|μ − 3σ|, |μ + 3σ|) / 2ⁿ⁻¹ and β at 0. From a range (activations), s
  starts at (max − min) / (2ⁿ − 1), and β so that the least code is min. In the
  paper weights are symmetric, without β, and activations start at the least
  squared error.

  Args:
    axis: the axis of which each index has its own s and β; None for one of
      each.

  Returns:
    A `Quantizer` for 1 to 16 bits; one bit is as in `lsq`.
  """

  def fit(x: Array, bits: Array) -> Params:
    zero_point, qmin, _ = _two_complement(bits)
    centre, spread = mean(x, axis), deviation(x, axis)
    # Divided first: three deviations of huge values would overflow.
    start = jnp.abs(centre) / -qmin + 3 * (spread / -qmin)
    start = jnp.where(zero_point < 0, 2 * mean_magnitude(x, axis), start)
    return {'scale': positive(start), 'offset': jnp.zeros_like(start)}

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    zero_point, qmin, qmax = _two_complement(bits)
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    scale = positive(high / (qmax - qmin) - low / (qmax - qmin))
    return {'scale': scale, 'offset': low - (qmin - zero_point) * scale}

  return _learned_rounding(
    fit,
    from_range,
    lambda params, bits: _two_complement(bits),
    ('scale', 'offset'),
  )


def seq(*, axis: Axis = None) -> Quantizer:
  """`lsq` with 2ⁿ levels around zero, and none at zero: ±s/2, ±3s/2….

  Stretched elastic quantization of Liu et al. (ParetoQ),
  https://arxiv.org/abs/2502.02631. It is meant for the lowest widths, where a
  level at zero, and one more level below zero than above, cost most. x passes
  gradients up to the end of the outermost cell. The paper starts at max|x|;
  here s starts at the least squared error, which matters at 1 and 2 bits.

  Args:
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """

  def codes(bits: Array) -> CodeRange:
    zero_point, qmin, qmax = _two_complement(bits)
    return jnp.full_like(zero_point, -0.5), qmin, qmax

  def fit(x: Array, bits: Array) -> Params:
    return {'scale': least_error_scale(x, *codes(bits), axis)}

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    _, qmin, _ = codes(bits)
    return {'scale': positive(largest(low, high) / -qmin)}

  return _learned_rounding(
    fit, from_range, lambda params, bits: codes(bits), ('scale',)
  )
