"""How one network is quantized, and the network run so.

Weights are a transform of the parameter tree; activations are caught at the
input of every layer that multiplies (`nn.Dense`, `nn.Conv`,
`nn.ConvTranspose` and what derives from them). The module itself is untouched
and does not know.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from flax import traverse_util
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from qgan_jax import quantizers

Array = jax.Array
PyTree = Any
Ranges = dict[str, Array]  # module path → [2], the lowest and the highest
FLOAT_BITS = 32  # From here on a tensor is left as it is.
LAYERS = (nn.Dense, nn.Conv, nn.ConvTranspose)


class Bits(NamedTuple):
  """Bit widths of one network, float32 scalars (traced: never static)."""

  weights: Array
  activations: Array


@dataclasses.dataclass(frozen=True)
class QuantizerSpec:
  """A quantizer by name: what a configuration or an artifact can hold."""

  name: str
  axis: int | None = None

  @property
  def quantizer(self) -> quantizers.Quantizer:
    """The quantizer itself."""
    return quantizers.by_name(self.name, axis=self.axis)


def is_weight(path: tuple[str, ...], value: Array) -> bool:
  """Whether a parameter is a weight: biases and norms are left alone."""
  return path[-1] == 'kernel' and value.ndim >= 2


@dataclasses.dataclass(frozen=True)
class Precision:
  """How one network is quantized. Static; the bit widths are not part of it.

  Attributes:
    weights: quantizer of the weights, or None to leave them in float.
    activations: quantizer of the layers' inputs, or None.
    momentum: of the moving average of the activations' ranges; 0 takes the
      range of every batch by itself (dynamic).
    input_bits: least bits of the network's own input (images, latents): what
      a layer further in can lose, the data cannot.
  """

  weights: QuantizerSpec | None = None
  activations: QuantizerSpec | None = None
  momentum: float = 0.99
  input_bits: int = 8

  def quantize_weights(self, params: PyTree, bits: Bits) -> PyTree:
    """The parameters with every weight quantized, straight-through.

    Args:
      params: the parameter tree of any Linen module.
      bits: the network's bit widths; from 32 on, weights are left as they are.

    Returns:
      A tree of the same shapes and dtypes.
    """
    if self.weights is None:
      return params
    quantizer = self.weights.quantizer
    flat = traverse_util.flatten_dict(params)
    for path, w in flat.items():
      if is_weight(path, w):
        rounded = quantizer.apply(
          w, quantizer.fit(w, bits.weights), bits.weights
        )
        flat[path] = jnp.where(bits.weights >= FLOAT_BITS, w, rounded)
    return traverse_util.unflatten_dict(flat)

  def apply(
    self,
    module: nn.Module,
    variables: Mapping[str, PyTree],
    ranges: Ranges,
    bits: Bits,
    *args: Any,
    update: bool = False,
    axis_name: str | None = None,
    axis_groups: Sequence[Sequence[int]] | None = None,
    **kwargs: Any,
  ) -> tuple[Any, Ranges]:
    """Runs a module with quantized activations; its weights are as given.

    Args:
      module: any Linen module.
      variables: its variables, weights already quantized.
      ranges: ranges of the activations by module path, as the last call left
        them; {} at the first.
      bits: the network's bit widths.
      *args: positional arguments of the module.
      update: whether the moving averages take this batch in.
      axis_name: the mapped axis over which ranges are reduced, so that
        every replica quantizes alike.
      axis_groups: the axis's indices that are reduced together; all if None.
      **kwargs: keyword arguments of `module.apply`.

    Returns:
      (what `module.apply` returns, the ranges to go on with).
    """
    if self.activations is None:
      return module.apply(variables, *args, **kwargs), ranges
    quantizer = self.activations.quantizer
    updated: Ranges = dict(ranges)
    seen: list[str] = []

    def quantize_input(next_fun, args, kwargs, context):
      layer = context.module
      if context.method_name != '__call__' or not isinstance(layer, LAYERS):
        return next_fun(*args, **kwargs)
      # Flax calls the input so; a module may give it either way.
      x, *rest = args or (kwargs.pop('inputs'),)
      path = '/'.join(layer.path)
      n = bits.activations
      if not seen:
        n = jnp.maximum(n, self.input_bits)
      seen.append(path)
      updated[path] = self._range(
        x, updated.get(path), update, axis_name, axis_groups
      )
      low, high = updated[path]
      if quantizer.from_range is None:
        fitted = quantizer.fit(x, n)
      else:
        fitted = quantizer.from_range(low, high, n)
      rounded = quantizer.apply(x, fitted, n)
      x = jnp.where(bits.activations >= FLOAT_BITS, x, rounded)
      return next_fun(x, *rest, **kwargs)

    with nn.intercept_methods(quantize_input):
      return module.apply(variables, *args, **kwargs), updated

  def _range(
    self,
    x: Array,
    average: Array | None,
    update: bool,
    axis_name: str | None,
    axis_groups: Sequence[Sequence[int]] | None,
  ) -> Array:
    """The range to quantize x with, [2]."""
    if self.momentum == 0:
      average = None
    if average is not None and not update:
      return average
    low, high = quantizers.tensor_range(x)
    if axis_name is not None:
      low = lax.pmin(low, axis_name, axis_index_groups=axis_groups)
      high = lax.pmax(high, axis_name, axis_index_groups=axis_groups)
    batch = jnp.stack([low, high])
    if average is None:
      return batch
    return self.momentum * average + (1 - self.momentum) * batch


def make_precision(
  *,
  weights: str,
  activations: str,
  per_channel: bool,
  ranges: str,
  momentum: float,
  input_bits: int,
) -> Precision:
  """A `Precision` from names.

  Args:
    weights: name of the weights' quantizer.
    activations: name of the activations' quantizer.
    per_channel: a scale for each output channel of a weight.
    ranges: 'moving' averages, or 'dynamic' from each batch.
    momentum: of the moving averages.
    input_bits: least bits of the network's own input.

  Returns:
    The precision of a network whose weights and activations are quantized.
  """
  return Precision(
    weights=QuantizerSpec(weights, axis=-1 if per_channel else None),
    activations=QuantizerSpec(activations),
    momentum=momentum if ranges == 'moving' else 0.0,
    input_bits=input_bits,
  )
