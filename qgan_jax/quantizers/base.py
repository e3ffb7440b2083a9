"""What a quantizer is: four pure functions of arrays."""

from collections.abc import Callable
from typing import NamedTuple

import jax

Array = jax.Array
Params = dict[str, Array]


class Quantizer(NamedTuple):
  """A quantizer, as a tuple of pure functions.

  `bits` is an array in each of them, so that one compiled program serves every
  bit width. For every x, `apply(x, params, bits)` equals
  `decode(encode(x, params, bits), params, bits)` exactly.

  Attributes:
    fit: (x, bits) → params, the quantizer's parameters (scales, zero points…)
      taken from the tensor itself. No gradient flows into them.
    from_range: (low, high, bits) → params, the same from a known range.
    apply: (x, params, bits) → x̂ of x's shape and dtype, with the quantizer's
      own gradient (`jax.custom_vjp`, differentiable again).
    encode: (x, params, bits) → codes, int32 of x's shape.
    decode: (codes, params, bits) → x̂, float32 of the codes' shape.
  """

  fit: Callable[[Array, Array], Params]
  from_range: Callable[[Array, Array, Array], Params]
  apply: Callable[[Array, Params, Array], Array]
  encode: Callable[[Array, Params, Array], Array]
  decode: Callable[[Array, Params, Array], Array]
