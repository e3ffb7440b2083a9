"""Statistics of a tensor that scales are computed from.

`axis` is None for one number per tensor, or the axis (or axes) of which each
index has its own number; dims are then kept. No gradient flows into the
results. They are finite for all float32 values and for an empty tensor.
"""

import math

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis


def reduction_axes(x: Array, axis: Axis) -> tuple[int, ...]:
  """The axes along which values share a number."""
  if axis is None:
    return tuple(range(x.ndim))
  own = (axis,) if isinstance(axis, int) else axis
  kept = {i % x.ndim for i in own}
  return tuple(i for i in range(x.ndim) if i not in kept)


def tensor_range(x: Array, axis: Axis = None) -> tuple[Array, Array]:
  """(min, max) of a tensor, or of each index of `axis` with dims kept.

  An empty tensor has the range (0, 0).
  """
  axes = reduction_axes(x, axis)
  x = jax.lax.stop_gradient(x).astype(jnp.float32)
  keep = axis is not None
  low = jnp.min(x, axis=axes, keepdims=keep, initial=jnp.inf)
  high = jnp.max(x, axis=axes, keepdims=keep, initial=-jnp.inf)
  empty = low > high
  return jnp.where(empty, 0.0, low), jnp.where(empty, 0.0, high)


def largest(low: Array, high: Array) -> Array:
  """The largest magnitude in a range."""
  return jnp.maximum(jnp.abs(low), jnp.abs(high)).astype(jnp.float32)


def is_within(x: Array, low: Array, high: Array) -> Array:
  """Whether x lies in a range, with some tolerance at the ends.

  The ends of a quantizer's range are computed from its scale, and the scale was
  computed from them. So they differ from the original ends in the last digits,
  and XLA may round them differently in every program. The range is therefore
  extended by a millionth of its larger end.
  """
  slack = 2.0**-20 * largest(low, high)
  return (x >= low - slack) & (x <= high + slack)


def positive(scale: Array) -> Array:
  """A scale that can be divided by; 1 where the scale is 0.

  It is clipped to 2⁻¹²⁶ … 2¹²⁶, so that it and its reciprocal are normal
  float32 numbers.
  """
  tiny = float(jnp.finfo(jnp.float32).tiny)
  return jnp.where(scale > 0, jnp.clip(scale, tiny, 1 / tiny), 1.0)


def not_of_nothing(scale: Array, top: Array, qmax: Array) -> Array:
  """The scale of signed codes, and nearly 0 where one bit is all there is.

  At one bit no level is 0, so a tensor of zeros needs levels as small as 0.

  Args:
    scale: of the codes.
    top: the largest magnitude.
    qmax: the greatest code, 0 at one bit.
  """
  tiny = float(jnp.finfo(jnp.float32).tiny)
  return jnp.where((qmax < 1) & (top == 0), tiny, scale)


def step_size(learned: Array) -> Array:
  """The step size of a learned scale s: |s|, at least a normal float32.

  A plain optimizer may take a learned scale past 0. Since only its magnitude is
  used, a negative scale gives the same grid as the positive one, and the step
  never becomes 0.
  """
  return jnp.maximum(jnp.abs(learned), jnp.finfo(jnp.float32).tiny)


def magnitude(learned: Array) -> Array:
  """|s| for the gradient of a learned scale, with slope 1 at s = 0.

  The slope of `jnp.abs` at 0 is 0, so a scale that reached 0 would stay there.
  """
  return jnp.where(learned < 0, -learned, learned)


def finite(x: Array) -> Array:
  """Clips values that rounding took beyond the largest float32 to it."""
  limit = jnp.finfo(jnp.float32).max
  return jnp.clip(x, -limit, limit)


def power_of_two(exponent: Array) -> Array:
  """2ᵉ for an integer e, limited to normal float32 numbers."""
  e = jnp.clip(exponent, -126, 127).astype(jnp.int32)
  return jnp.ldexp(jnp.ones(e.shape, jnp.float32), e)


def floor_log2(x: Array) -> Array:
  """floor(log2 x) of positive float32, int32; exact, unlike `jnp.log2`."""
  # m · 2ᵉ with ½ ≤ m < 1.
  _, exponent = jnp.frexp(x)
  return exponent - 1


def ceil_log2(x: Array) -> Array:
  """ceil(log2 x) of positive float32, int32; exact, unlike `jnp.log2`."""
  mantissa, exponent = jnp.frexp(x)
  return exponent - (mantissa == 0.5)


def count(x: Array, axis: Axis = None) -> int:
  """How many values share a number; at least 1."""
  return max(1, math.prod(x.shape[i] for i in reduction_axes(x, axis)))


def mean(x: Array, axis: Axis = None) -> Array:
  """Mean value; 0 of an empty tensor."""
  x = jax.lax.stop_gradient(x).astype(jnp.float32)
  # Divided first: the sum of huge values would overflow.
  axes, keep = reduction_axes(x, axis), axis is not None
  return finite(jnp.sum(x / count(x, axis), axes, keepdims=keep))


def mean_magnitude(x: Array, axis: Axis = None) -> Array:
  """Mean of |x|; 0 of an empty tensor."""
  return mean(jnp.abs(x), axis)


def root_mean_square(x: Array, axis: Axis = None) -> Array:
  """√(mean of x²); 0 of an empty tensor."""
  unit = positive(largest(*tensor_range(x, axis)))
  # Divided first: the square of huge values would overflow.
  z = jax.lax.stop_gradient(x).astype(jnp.float32) / unit
  return unit * jnp.sqrt(mean(jnp.square(z), axis))


def deviation(x: Array, axis: Axis = None) -> Array:
  """Standard deviation (of the population); 0 for an empty tensor."""
  unit = positive(largest(*tensor_range(x, axis)))
  # Divided first, twice: neither the difference nor its square may overflow.
  z = jax.lax.stop_gradient(x).astype(jnp.float32) / unit
  return unit * jnp.sqrt(mean(jnp.square(z - mean(z, axis)), axis))
