"""A layer of a plan: a product with weights, and operations merged into it."""

import dataclasses
from typing import Any

import numpy as np

from qgan_jax.artifacts.levels import (
  Codes,
  integer_codes,
  pairs_fit,
  Steps,
)
from qgan_jax.artifacts.trace import (
  BATCH,
  Constant,
  MAX_CODE,
  Node,
  Operand,
)

Array = np.ndarray
Pairs = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Window:
  """How a convolution moves over its input, by (height, width).

  Attributes:
    strides: of the window.
    padding: of the input, before and behind; for a transposed convolution, of
      the input with `spread` − 1 zeros between its pixels.
    dilation: of the kernel.
    spread: 1; for a transposed convolution, its strides.
    groups: of the channels.
    first: rows and columns at the start of the output that are left out.
    size: height and width of the output, without those.
  """

  strides: tuple[int, int]
  padding: Pairs
  dilation: tuple[int, int]
  spread: tuple[int, int]
  groups: int
  size: tuple[int, int]
  first: tuple[int, int] = (0, 0)


def full_size(window: Window, kernel: Any, size: Any) -> list[int]:
  """Height and width of the output before anything is cropped."""
  return [
    (s * (n - 1) + 1 + lo + hi - (k - 1) * d - 1) // stride + 1
    for s, n, (lo, hi), k, d, stride in zip(
      window.spread, size, window.padding, kernel, window.dilation,
      window.strides, strict=True,
    )
  ]  # fmt: skip


def of_ones(kernel: Array, window: Window, size: Any) -> Array:
  """Output of a convolution for an input of ones, float64 [H, W, O].

  Its values are not all equal, since padding is zeros.

  Args:
    kernel: of the layer, [h, w, I, O].
    window: of the layer.
    size: height and width of its input.
  """
  sums_of_taps = np.asarray(kernel, np.float64).sum(2)
  full = full_size(window, kernel.shape[:2], size)
  sums = np.zeros((*full, kernel.shape[-1]))
  (top, _), (left, _) = window.padding
  for i, j in np.ndindex(kernel.shape[:2]):
    # Output o reads pixel (o · stride + tap − padding) / spread, where that is
    # whole.
    rows, columns = (
      [
        place // stride
        for n in range(count)
        if (place := spread * n + low - tap * dilation) % stride == 0
      ]
      for spread, low, tap, dilation, stride, count in zip(
        window.spread, (top, left), (i, j), window.dilation, window.strides,
        size, strict=True,
      )
    )  # fmt: skip
    for row in filter(range(full[0]).__contains__, rows):
      for column in filter(range(full[1]).__contains__, columns):
        sums[row, column] += sums_of_taps[i, j]
  kept = tuple(
    slice(a, a + n) for a, n in zip(window.first, window.size, strict=True)
  )
  return sums[kept]


@dataclasses.dataclass(frozen=True)
class Layer:
  """A product with weights, and a scale and a bias for its output.

  Attributes:
    name: of the module.
    kernel: quantized values: [K, N] of a dense layer, [h, w, I, O] of a
      convolution, as in JAX, which does not flip kernels.
    codes: the same as signed bytes and scales; None for a kernel in float.
    steps: of the quantized input; None for an input in float.
    bias: [N] or [O].
    window: of a convolution; None for a dense layer.
    columns: shape of a dense layer's output for one example.
    split: whether a graph multiplies each code as the sum of two smaller ones,
      whose products fit into 16 bits.
  """

  name: str
  kernel: Array
  codes: Codes | None
  steps: Steps | None
  bias: Array
  window: Window | None = None
  columns: tuple[int, ...] = ()
  split: bool = False

  @property
  def needs_vnni(self) -> bool:
    """Whether products are wrong on processors that add pairs in 16 bits."""
    if self.codes is None or self.steps is None or self.split:
      return False
    return not pairs_fit(self.steps, self.codes)


def with_operation(layer: Layer, node: Node, x: Operand) -> Layer | None:
  """The layer with an operation on its output merged in; None if impossible."""
  shape, window = node.output.shape, layer.window
  if node.op == 'reshape' and window is None:
    whole: bool = x.shape == (BATCH, *layer.columns) and shape[0] == BATCH
    if whole and min(shape[1:], default=0) > 0:
      return dataclasses.replace(layer, columns=shape[1:])
  if node.op == 'slice' and window is not None and len(shape) == 4:
    starts, strides = node.params['start_indices'], node.params['strides']
    if strides is None and x.shape[::3] == shape[::3] and not any(starts[::3]):
      (top, left), (_, more, further, _) = window.first, starts
      window = dataclasses.replace(
        window, first=(top + more, left + further), size=shape[1:3]
      )
      return dataclasses.replace(layer, window=window)
  if node.op == 'neg':
    return _scaled(layer, -np.ones_like(layer.bias))
  if node.op not in ('add', 'sub', 'mul', 'div') or x.shape != shape:
    return None
  (other,) = (y for y in node.inputs if y is not x)
  value = _by_column(layer, other, x)
  if value is None:
    return None
  leads = node.inputs[0] is x
  match node.op:
    case 'mul':
      return _scaled(layer, value)
    case 'div':
      return _scaled(layer, 1 / value) if leads else None
    case 'sub' if leads:
      value = -value
    case 'sub':
      layer = _scaled(layer, -np.ones_like(value))
  return dataclasses.replace(layer, bias=layer.bias + value)


def _by_column(layer: Layer, value: Operand, x: Operand) -> Array | None:
  """A constant as one number for each channel of a layer's output x."""
  if not isinstance(value, Constant):
    return None
  array = value.value
  if array.size == 1:
    return np.full_like(layer.bias, array.item())
  if array.ndim != len(x.shape):
    return None
  if layer.window is None and x.shape == (BATCH, *layer.columns):
    if array.shape[0] != 1:
      return None
    return np.broadcast_to(array[0], layer.columns).reshape(-1)
  if array.size != array.shape[-1]:
    return None
  return np.broadcast_to(array.reshape(-1), layer.bias.shape)


def _scaled(layer: Layer, factor: Array) -> Layer:
  """A layer whose output is multiplied; its codes stay."""
  codes = layer.codes
  if codes is not None:
    # The sign goes into the scale: −128 has no opposite among the codes. A
    # channel that is turned off needs a scale, too.
    scales = np.where(factor == 0, 1, codes.scales * factor)
    codes = Codes(codes.codes * (factor != 0), scales.astype(np.float32))
  return dataclasses.replace(
    layer,
    kernel=layer.kernel * factor,
    codes=codes,
    bias=layer.bias * factor,
  )


def codes_of(weight: Constant) -> Codes | None:
  """The codes of a weight whose last axis is the output channels."""
  scales = weight.scales
  if scales is not None:
    one_each = scales.reshape(-1, scales.shape[-1])
    if (one_each == one_each[0]).all():
      codes = np.rint(weight.value / scales).astype(np.int32)
      return Codes(codes, np.ascontiguousarray(one_each[0]))
  # Of a weight that was computed with, or whose channels are elsewhere.
  return integer_codes(weight.value, MAX_CODE)
