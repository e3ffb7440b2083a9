"""Stochastic rounding, whose mean is the value itself."""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  largest,
  not_of_nothing,
  positive,
  tensor_range,
)
from qgan_jax.quantizers.straight_through import straight_through
from qgan_jax.quantizers.uniform import (
  codes_symmetric,
  in_steps,
  is_inside,
  rounding,
)


def round_stochastically(x: Array, key: Array) -> Array:
  """floor(x + u) with u ~ U[0, 1): an integer whose mean is x.

  Gupta et al., https://arxiv.org/abs/1502.02551, eq. 1.

  Args:
    x: float32 of any shape, magnitudes below 2²⁰: beyond that, x + u has too
      few digits left for u.
    key: a PRNG key.
  """
  return jnp.floor(x + jax.random.uniform(key, x.shape))


def stochastic(*, axis: Axis = None) -> Quantizer:
  """`uniform` with stochastic rounding: E[x̂] = x inside the range.

  Gupta et al., https://arxiv.org/abs/1502.02551, round to a fixed-point format
  in this way; here the scale comes from max|x|. At one bit the levels are
  ±max|x|, the only two that enclose every value.

  Args:
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    A `Quantizer` for 1 to 16 bits. Without a key, `apply` rounds to nearest, as
    `encode` does.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    _, _, qmax = codes_symmetric(bits)
    top = largest(low, high)
    limit = jnp.finfo(jnp.float32).max
    wide = jnp.minimum(top, limit / 2) * 2
    scale = positive(jnp.where(qmax < 1, wide, top / qmax))
    return {'scale': not_of_nothing(scale, top, qmax)}

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  nearest = rounding(
    fit, from_range, lambda params, bits: codes_symmetric(bits)
  )

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    if key is None:
      return nearest.apply(x, params, bits)
    zero_point, qmin, qmax = codes_symmetric(bits)
    scale = params['scale']
    steps = in_steps(x, scale, zero_point)
    codes = jnp.clip(round_stochastically(steps, key), qmin, qmax)
    inside = is_inside(x, scale, zero_point, qmin, qmax)
    y = nearest.decode(codes, params, bits)
    return straight_through(x, y, inside)

  return nearest._replace(apply=apply, stochastic=True)
