"""What a quantizer is: a tuple of pure functions of arrays."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

Array = jax.Array
Params = dict[str, Array]
# For parameters per channel, the axis of the channels, or several such axes.
# With None, one set of parameters serves the whole tensor.
Axis = int | tuple[int, ...] | None


class Apply(Protocol):
  """The type of `Quantizer.apply`: (x, params, bits, key=None) → x̂."""

  def __call__(
    self, x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    """Quantizes x."""


class Quantizer(NamedTuple):
  """A quantizer, as a tuple of pure functions.

  In all of them `bits` is an array, so one compiled program serves every bit
  width. For every x, `apply(x, params, bits)` equals `decode(encode(x, params,
  bits), params, bits)` exactly. There are two exceptions: x of a narrower
  dtype, to which `apply` rounds its result, and `grid` where codes exceed
  int32.

  Attributes:
    fit: (x, bits) → params, the quantizer's parameters (scales, zero points…)
      for this tensor: a flat dict of arrays, which may be empty. No gradient
      flows into them.
    from_range: (low, high, bits) → params, the same from a known range. None if
      a range is not enough, so that params are fitted to every tensor, or if
      there are no params because the range is part of the definition.
    apply: (x, params, bits, key=None) → x̂ of x's shape and dtype, with the
      quantizer's own gradient (`jax.custom_vjp`, differentiable again).
    encode: (x, params, bits) → codes, int32 of x's shape.
    decode: (codes, params, bits) → x̂, float32 of the codes' shape.
    learned: names of the params that are kept in training and trained by
      gradient descent. `fit` and `from_range` give their initial values, and
      `apply` has the paper's gradient with respect to them. For a param that is
      kept but never changes ('signed'), this gradient is 0.
    stochastic: whether `apply` rounds at random if it gets a key. Without a key
      it rounds to nearest, as `encode` always does.
    fixed_bits: width of a code if the definition fixes it; `bits` is then
      ignored. None if `bits` gives the width.
    most_bits: if `bits` gives the width, the largest width that has codes of
      its own; more bits give no more levels.
    of_rows: whether params belong to rows of one tensor, such as the scales of
      blocks in them. Those of different tensors have no meaningful mean.
  """

  fit: Callable[[Array, Array], Params]
  from_range: Callable[[Array, Array, Array], Params] | None
  apply: Apply
  encode: Callable[[Array, Params, Array], Array]
  decode: Callable[[Array, Params, Array], Array]
  learned: tuple[str, ...] = ()
  stochastic: bool = False
  fixed_bits: int | None = None
  most_bits: int = 16
  of_rows: bool = False

  @property
  def widths(self) -> range:
    """All widths that a code can have."""
    if self.fixed_bits is not None:
      return range(self.fixed_bits, self.fixed_bits + 1)
    return range(1, self.most_bits + 1)
