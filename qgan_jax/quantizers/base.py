"""What a quantizer is: pure functions of arrays, and what they ask for."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

Array = jax.Array
Params = dict[str, Array]
# The axis of a tensor whose every index has parameters of its own, or several
# such axes; None for one set of parameters for all of it.
Axis = int | tuple[int, ...] | None


class Apply(Protocol):
  """(x, params, bits, key=None) → x̂."""

  def __call__(
    self, x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    """Quantizes."""


class Quantizer(NamedTuple):
  """A quantizer, as a tuple of pure functions.

  `bits` is an array in each of them, so that one compiled program serves every
  bit width. For every x, `apply(x, params, bits)` equals
  `decode(encode(x, params, bits), params, bits)` exactly, but for what a
  narrower dtype of x rounds off, and where `grid` needs codes past int32.

  Attributes:
    fit: (x, bits) → params, the quantizer's parameters (scales, zero points…)
      taken from the tensor itself: a flat dict of arrays, which may be empty.
      No gradient flows into them.
    from_range: (low, high, bits) → params, the same from a known range; None
      where a range is not enough, and params are fitted to every tensor, and
      where there are no params, since the range is a part of the definition.
    apply: (x, params, bits, key=None) → x̂ of x's shape and dtype, with the
      quantizer's own gradient (`jax.custom_vjp`, differentiable again).
    encode: (x, params, bits) → codes, int32 of x's shape.
    decode: (codes, params, bits) → x̂, float32 of the codes' shape.
    learned: names of the params that training keeps and gradient descent
      trains. `fit` and `from_range` then give their initial values, and
      `apply` has the paper's gradient with respect to them; of one that is
      kept and never changes ('signed'), it is 0.
    stochastic: whether `apply` rounds at random with the key that it is
      given. Without one it rounds to nearest, as `encode` always does.
    fixed_bits: the width of a code where the definition fixes it, and `bits`
      is ignored; None where `bits` says it.
    most_bits: where `bits` says it, the most that there is a code for; more
      give no more levels.
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

  @property
  def widths(self) -> range:
    """The widths that a code can have."""
    if self.fixed_bits is not None:
      return range(self.fixed_bits, self.fixed_bits + 1)
    return range(1, self.most_bits + 1)
