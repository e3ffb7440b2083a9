"""Statistics of a tensor from which scales are made.

Each takes `axis`: None for one number per tensor, or the axis, or axes, with a
number for each index, dims kept. No gradient flows into any of them. They are
finite for whatever float32 holds, an empty tensor included.
"""

import math

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis


def reduction_axes(x: Array, axis: Axis) -> tuple[int, ...]:
  """The axes that share a number."""
  if axis is None:
    return tuple(range(x.ndim))
  own = (axis,) if isinstance(axis, int) else axis
  kept = {i % x.ndim for i in own}
  return tuple(i for i in range(x.ndim) if i not in kept)


def tensor_range(x: Array, axis: Axis = None) -> tuple[Array, Array]:
  """(min, max) of a tensor, or for each index of `axis` with dims kept.

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
  """Whether x lies in a range, its ends included however they were rounded.

  The ends of a quantizer's range are computed from its scale, which was itself
  computed from them: they come back a few units in the last place off, and XLA
  may round them otherwise in every program. So the range is taken a millionth
  of its larger end wider.
  """
  slack = 2.0**-20 * largest(low, high)
  return (x >= low - slack) & (x <= high + slack)


def positive(scale: Array) -> Array:
  """A scale that is safe to divide by, as its reciprocal: 1 where all is zero.

  Both have all their digits: 2⁻¹²⁶ … 2¹²⁶.
  """
  tiny = float(jnp.finfo(jnp.float32).tiny)
  return jnp.where(scale > 0, jnp.clip(scale, tiny, 1 / tiny), 1.0)


def step_size(learned: Array) -> Array:
  """The size that a learned scale stands for: |s|, and a normal float32.

  A plain optimizer may take a learned scale past 0. Read by its size alone, it
  still gives the same grid as the positive one, and never one turned round or
  shrunk to a point.
  """
  return jnp.maximum(jnp.abs(learned), jnp.finfo(jnp.float32).tiny)


def magnitude(learned: Array) -> Array:
  """|s| for the gradient of a learned scale: its slope at 0 is 1.

  That of `jnp.abs` is 0 there, and a scale that reached 0 would stay.
  """
  return jnp.where(learned < 0, -learned, learned)


def finite(x: Array) -> Array:
  """What rounding took past the largest float32 is the largest."""
  limit = jnp.finfo(jnp.float32).max
  return jnp.clip(x, -limit, limit)


def power_of_two(exponent: Array) -> Array:
  """2ᵉ for an integer e, kept to what float32 holds with all its digits."""
  e = jnp.clip(exponent, -126, 127).astype(jnp.int32)
  return jnp.ldexp(jnp.ones(e.shape, jnp.float32), e)


def floor_log2(x: Array) -> Array:
  """floor(log2 x) of positive float32, exact where log2 is not; int32."""
  # m · 2ᵉ with ½ ≤ m < 1.
  _, exponent = jnp.frexp(x)
  return exponent - 1


def ceil_log2(x: Array) -> Array:
  """ceil(log2 x) of positive float32, exact where log2 is not; int32."""
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
  """Standard deviation, that of the population; 0 of an empty tensor."""
  unit = positive(largest(*tensor_range(x, axis)))
  # Divided first, twice: neither the difference nor its square may overflow.
  z = jax.lax.stop_gradient(x).astype(jnp.float32) / unit
  return unit * jnp.sqrt(mean(jnp.square(z - mean(z, axis)), axis))
