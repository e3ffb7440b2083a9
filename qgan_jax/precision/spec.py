"""Bit widths, and quantizers by name: what rules set and states store."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import jax

from qgan_jax import quantizers

Array = jax.Array
Params = dict[str, Array]
# The learned parameters of quantizers, by role, and then by layer.
Learned = dict[str, dict[str, Params]]
# A bit width for all layers, or one by each layer's path.
Width = Array | dict[str, Array]
FLOAT_BITS = 32  # With so many bits or more, a tensor is not quantized.
ROLES = ('weights', 'activations', 'gradients')
# Why `quantizer=grid` cannot use the bits that other quantizers have.
GRID_NEEDS_BITS = (
  'quantizer=grid needs bits=b, the exponent of its step 2^b: -6 is a step of '
  '1/64, and 8 one of 256, on which every weight is 0'
)


class Bits(NamedTuple):
  """Bit widths of one network, float32 scalars (traced, never static).

  Each field holds one width for all layers, or a dictionary by module path with
  every layer of that role.

  Attributes:
    weights: of the weights.
    activations: of the layers' inputs.
    gradients: of the gradients of the layers' outputs; None for float.
    sparsity: share of the weights that pruning sets to 0; None for no pruning.
  """

  weights: Width
  activations: Width
  gradients: Width | None = None
  sparsity: Array | None = None


def width(bits: Any, path: str) -> Any:
  """The bits of one layer, from one field of `Bits`.

  Args:
    bits: the field.
    path: module path of the layer.

  Raises:
    ValueError: the field is a dictionary without this layer.
  """
  if not isinstance(bits, Mapping):
    return bits
  if path not in bits:
    raise ValueError(f'no bits for {path!r}, only for {", ".join(bits)}')
  return bits[path]


def takes_bits(name: str, bits: Any) -> bool:
  """Whether the quantizer of this name supports this many bits."""
  if bits == FLOAT_BITS:
    return True
  return type(bits) is int and bits in quantizers.by_name(name).widths


def allowed_bits(name: str) -> str:
  """The widths that `takes_bits` accepts, in words."""
  widths = quantizers.by_name(name).widths
  if len(widths) == 1:
    return f'{widths[0]} alone, or 32 for float, with {name}'
  return (
    f'a whole number from {widths[0]} to {widths[-1]}, or 32 for float, with '
    f'{name}'
  )


@dataclasses.dataclass(frozen=True)
class QuantizerSpec:
  """A quantizer by name, in a form that a config or a file can store.

  Attributes:
    name: one of `quantizers.NAMES`.
    axis: the axis, or axes, of which each index has its own scale; None for one
      scale.
    ranges: where the range of activations comes from: 'moving', 'dynamic',
      'mse' or 'fitted' (see `Precision`). None means 'moving', or 'dynamic' if
      the `momentum` of `Precision` is 0.
  """

  name: str
  axis: quantizers.Axis = None
  ranges: str | None = None

  @property
  def per_channel(self) -> bool:
    """Whether each index of the axis has its own parameters."""
    return self.axis is not None and self.name not in quantizers.PER_TENSOR

  @property
  def quantizer(self) -> quantizers.Quantizer:
    """The quantizer of this name and axis."""
    return quantizers.by_name(self.name, axis=self.axis)
