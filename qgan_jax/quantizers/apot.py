"""APoT: levels that are sums of powers of two."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  finite,
  largest,
  magnitude,
  positive,
  root_mean_square,
  step_size,
)
from qgan_jax.quantizers.straight_through import straight_through_learned

MAX_BITS = 8


def additive_powers(bits: int) -> np.ndarray:
  """The magnitudes of APoT's levels in units of the clip, ascending.

  Li et al. (APoT), https://arxiv.org/abs/1909.13144, eq. 5 and its note on odd
  widths: sums of one term from each of n sets, the i-th {0, 2^−i, 2^−(i+n),
  2^−(i+2n)}, and one more set of {0, a power between} if the width is odd.

  Args:
    bits: of the magnitude alone, without the sign; at least 1.

  Returns:
    float64 [2^bits], from 0 to 1.
  """
  sets, odd = divmod(bits, 2)
  # The authors' order: two rounds over the sets, the odd one, a third round.
  rounds = [
    [2.0 ** -(j * sets + i + 1 + (odd if j == 2 else 0)) for j in range(3)]
    for i in range(sets)
  ]
  if odd:
    rounds.append([2.0 ** -(2 * sets + 1)])
  sums = [
    sum(terms) for terms in itertools.product(*([0.0, *r] for r in rounds))
  ]
  levels = np.sort(np.array(sums))
  return levels / levels[-1]


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
  """(levels, the bounds between them), a row for each width from 2 on.

  float32 [MAX_BITS − 1, 2^(MAX_BITS − 1)], padded with 1 and with infinity.
  """
  shape = MAX_BITS - 1, 2 ** (MAX_BITS - 1)
  levels, bounds = np.ones(shape), np.full(shape, np.inf)
  for row in range(MAX_BITS - 1):
    values = additive_powers(row + 1)
    levels[row, : values.size] = values
    bounds[row, : values.size - 1] = (values[1:] + values[:-1]) / 2
  return levels.astype(np.float32), bounds.astype(np.float32)


def apot(*, axis: Axis = None) -> Quantizer:
  """x̂ = γ · (the nearest sum of powers of two to x / γ); γ is learned.

  Li et al. (APoT), https://arxiv.org/abs/1909.13144: a sign and 2ⁿ⁻¹
  magnitudes, denser near zero, with products that are shifts and sums. ∂x̂/∂γ
  is Π(x / γ) − x / γ inside the clip and sign(x) outside (eq. 9). x passes
  every gradient, as weights do in the authors' code. The paper subtracts the
  weights' mean, divides by their deviation and starts the clip at 3. Here
  weights keep their mean and size, and γ starts at three root mean squares. One
  bit, which has no magnitude to choose, has the levels ±γ / 2.

  Activations are quantized like weights. In the authors' code they are
  unsigned: clamped to [0, γ], in 2ⁿ levels, with no gradient outside.

  Args:
    axis: the axis of which each index has its own γ; None for one.

  Returns:
    A `Quantizer` for 1 to 8 bits. More bits give the levels of 8, since levels
    are a table, which would grow to 32,768 entries.
  """

  def fit(x: Array, bits: Array) -> Params:
    del bits
    third = jnp.finfo(jnp.float32).max / 3
    return {'clip': 3 * jnp.minimum(positive(root_mean_square(x, axis)), third)}

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    del bits
    return {'clip': positive(largest(low, high))}

  def row(table: np.ndarray, bits: Array) -> Array:
    width = jnp.clip(jnp.asarray(bits).round().astype(jnp.int32), 2, MAX_BITS)
    return jnp.asarray(table)[width - 2]

  def clip_of(params: Params) -> Array:
    return step_size(params['clip'])

  def encode(x: Array, params: Params, bits: Array) -> Array:
    x = x.astype(jnp.float32)
    index = jnp.searchsorted(
      row(_tables()[1], bits),
      jnp.abs(x) / clip_of(params),
      method='scan_unrolled',
    ).astype(jnp.int32)
    codes = jnp.where(x < 0, -index, index)
    return jnp.where(jnp.asarray(bits) < 1.5, -(x < 0).astype(jnp.int32), codes)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    many = jnp.sign(codes) * row(_tables()[0], bits)[jnp.abs(codes)]
    unit = jnp.where(jnp.asarray(bits) < 1.5, codes + 0.5, many)
    return finite(unit * clip_of(params))

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    unit = x.astype(jnp.float32) / clip_of(params)
    inside = jnp.abs(unit) <= 1
    slope = jnp.where(inside, y / clip_of(params) - unit, jnp.sign(unit))
    clip = {'clip': magnitude(params['clip'])}
    return straight_through_learned(x, clip, y, jnp.ones(()), {'clip': slope})

  return Quantizer(
    fit, from_range, apply, encode, decode, ('clip',), most_bits=MAX_BITS
  )
