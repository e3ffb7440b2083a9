"""Convolutions as matrix products, channels last, for any graph format.

ONNX Runtime and LiteRT multiply integer matrices and return the whole sums.
Their integer convolutions round their output to bytes, which training does not
do, and ONNX Runtime has no transposed integer convolution. So windows of the
input are gathered as bytes and multiplied by a matrix. In a transposed
convolution, an output pixel is the product with a window that depends on its
phase (with stride 2: row and column odd or even). If there are fewer outputs
than values to gather, the products of all taps are added up instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np

from qgan_jax.artifacts.layer import full_size, Layer, Window
from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.errors import UserError

Array = np.ndarray
Order = Callable[[Array], Array]
# Up to here, adding up what overlaps costs less than gathering windows.
_FEW_CHANNELS = 4


class Writer(Protocol):
  """Writes a graph in some format, with tensors of any type."""

  def reshape(self, x: Any, *shape: int) -> Any:
    """The same values in another shape, apart from the batch axis."""

  def slice(
    self,
    x: Any,
    starts: list[int],
    stops: list[int],
    axes: list[int],
    strides: list[int] | None = None,
  ) -> Any:
    """A part of x along some axes."""

  def concat(self, parts: Sequence[Any], axis: int) -> Any:
    """Joins tensors along an axis."""

  def split(self, x: Any, parts: int, axis: int) -> list[Any]:
    """Splits x into this many parts of the same size."""

  def padded(
    self,
    x: Any,
    pads: Mapping[int, tuple[int, int]],
    steps: Steps | None = None,
  ) -> Any:
    """Adds zeros before and behind along some axes; negative numbers crop.

    Args:
      x: numbers, or codes.
      pads: by axis, for a tensor of four axes.
      steps: of the codes; None for numbers.
    """

  def added(self, parts: Sequence[Any]) -> Any:
    """The sum of tensors of numbers."""


class Multiplier(Writer, Protocol):
  """A writer that can also multiply matrices of codes."""

  def product(self, codes: Any, layer: Layer, order: Order) -> Any:
    """Codes [.., K] times a weight in the form of `order`, [K, columns]."""


def channels_last(
  b: Multiplier, x: Any, layer: Layer, window: Window, size: Any
):
  """A convolution of codes [B, h, w, I] to floats [B, H, W, O].

  Args:
    b: the builder.
    x: the codes.
    layer: the convolution; its bias is not added.
    window: of the layer.
    size: (h, w).

  Raises:
    UserError: it is a kind of transposed convolution that cannot be written so.
  """
  kernel, inputs = layer.kernel.shape[:2], layer.kernel.shape[2]
  outputs = layer.kernel.shape[3]
  spread = max(window.spread) > 1
  narrow = any(k < s for k, s in zip(kernel, window.spread, strict=True))
  if spread and (narrow or max(window.dilation) > 1):
    raise UserError(
      f'{layer.name} is a transposed convolution whose kernel is dilated or '
      'smaller than its stride, which cannot be written as products: export it '
      'as packed or stablehlo'
    )
  if window.groups > 1:
    parts = []
    each = outputs // window.groups
    for group in range(window.groups):
      codes = b.slice(x, [group * inputs], [(group + 1) * inputs], [3])
      own = slice(group * each, (group + 1) * each)
      part = _part(layer, own)
      parts.append(_windows(b, codes, part, window, size))
    return b.concat(parts, 3)
  few = outputs <= _FEW_CHANNELS
  if few and (window.spread, kernel, window.padding) == (
    (2, 2), (4, 4), ((2, 2), (2, 2))
  ):  # fmt: skip
    return _overlapped(b, x, layer, window, size)
  if few and window.strides == window.dilation == window.spread == (1, 1):
    return _added_up(b, x, layer, window, size)
  return _windows(b, x, layer, window, size)


def _part(layer: Layer, own: slice) -> Layer:
  """A layer with some of its outputs."""
  codes = layer.codes
  if codes is not None:
    codes = Codes(codes.codes[..., own], codes.scales[own])
  return dataclasses.replace(
    layer, kernel=layer.kernel[..., own], codes=codes, bias=layer.bias[own]
  )


class _Phase(NamedTuple):
  """Along one axis: outputs q·spread + phase are sums over taps of the input.

  Attributes:
    first: the kernel's first tap; the others follow at `spread`.
    taps: how many there are.
    start: the input's pixel under the first tap, of q = 0.
  """

  first: int
  taps: int
  start: int


def _phases(kernel: int, low: int, spread: int) -> Iterator[_Phase]:
  for phase in range(spread):
    first = (low - phase) % spread
    taps = len(range(first, kernel, spread))
    yield _Phase(first, taps, (phase + first - low) // spread)


def _windows(
  b: Multiplier, x: Any, layer: Layer, window: Window, size: Any
) -> Any:
  """A product with gathered windows of the input for each phase."""
  kernel, channels = layer.kernel.shape[:2], layer.kernel.shape[3]
  full = full_size(window, kernel, size)
  counts = [-(-n // s) for n, s in zip(full, window.spread, strict=True)]
  phases = [
    list(_phases(k, lo, s))
    for k, (lo, _), s in zip(kernel, window.padding, window.spread, strict=True)
  ]
  padding = []
  for axis, (n, count) in enumerate(zip(size, counts, strict=True)):
    stride, dilation = window.strides[axis], window.dilation[axis]
    last = [
      p.start + (count - 1) * stride + (p.taps - 1) * dilation
      for p in phases[axis]
    ]
    before = max(0, -min(p.start for p in phases[axis]))
    padding.append((before, max(0, max(last) - (n - 1))))
  if np.any(padding):
    x = b.padded(x, dict(enumerate(padding, 1)), layer.steps)
  found: dict[Any, Any] = {}

  def shifted(place: tuple[int, ...]) -> Any:
    if place not in found:
      stops = [
        p + (count - 1) * stride + 1
        for p, count, stride in zip(place, counts, window.strides, strict=True)
      ]
      whole = place == (0, 0) and stops == [
        n + lo + hi for n, (lo, hi) in zip(size, padding, strict=True)
      ]
      found[place] = (
        x
        if whole and set(window.strides) == {1}
        else b.slice(x, list(place), stops, [1, 2], list(window.strides))
      )
    return found[place]

  rows = []
  for row in phases[0]:
    products = []
    for column in phases[1]:
      taps = [
        shifted((
          padding[0][0] + row.start + i * window.dilation[0],
          padding[1][0] + column.start + j * window.dilation[1],
        ))
        for i in range(row.taps)
        for j in range(column.taps)
      ]  # fmt: skip
      gathered = b.concat(taps, 3) if len(taps) > 1 else taps[0]

      def own(k: Array, row: _Phase = row, column: _Phase = column) -> Array:
        k = k[row.first :: window.spread[0], column.first :: window.spread[1]]
        return k.reshape(-1, channels)

      products.append(b.product(gathered, layer, own))
    rows.append(products)
  x = _interleaved(b, rows, counts, channels)
  spread = [n * s for n, s in zip(counts, window.spread, strict=True)]
  return cut(b, x, spread, window, (1, 2))


def _interleaved(
  b: Writer, rows: list[list[Any]], counts: Any, channels: int
) -> Any:
  """[B, h, w, O] of every phase to [B, H, W, O]."""
  if len(rows) == len(rows[0]) == 1:
    return rows[0][0]
  height, width = counts
  lines = []
  for phases in rows:
    pairs = b.concat(phases, 3)
    lines.append(b.reshape(pairs, height, 1, len(phases) * width * channels))
  x = b.concat(lines, 2)
  return b.reshape(x, len(rows) * height, len(rows[0]) * width, channels)


def _added_up(
  b: Multiplier, x: Any, layer: Layer, window: Window, size: Any
) -> Any:
  """By adding up the products of each tap, moved to where they belong."""
  height, width = layer.kernel.shape[:2]
  x = b.product(
    x, layer, lambda k: k.transpose(2, 0, 1, 3).reshape(k.shape[2], -1)
  )
  full = full_size(window, (height, width), size)
  for axis, taps in ((1, height), (2, width)):
    if taps == 1 and not any(window.padding[axis - 1]):
      continue
    moved = []
    for tap, part in enumerate(b.split(x, taps, 3)):
      # What lies outside of the input is 0.
      before = window.padding[axis - 1][0] - tap
      behind = full[axis - 1] - size[axis - 1] - before
      pads = {axis: (before, behind)}
      moved.append(b.padded(part, pads) if before or behind else part)
    x = b.added(moved)
  return cut(b, x, full, window, (1, 2))


def _overlapped(
  b: Multiplier, x: Any, layer: Layer, window: Window, size: Any
) -> Any:
  """By adding up the 4×4 pixels that each input pixel makes."""
  channels = layer.kernel.shape[-1]
  height, width = size
  products = b.product(
    x,
    layer,
    lambda k: k[::-1, ::-1].transpose(2, 0, 1, 3).reshape(k.shape[2], -1),
  )

  def overlap(x: Any, y: Any, axis: int) -> Any:
    return b.added([b.padded(x, {axis: (0, 1)}), b.padded(y, {axis: (1, 0)})])

  lines = []
  for taps in b.split(products, 4, 3):
    left, right = b.split(taps, 2, 3)
    lines.append(overlap(left, right, 2))
  rows = [
    b.reshape(
      overlap(lines[i], lines[i + 2], 1),
      height + 1, 1, (2 * width + 2) * channels,
    )
    for i in (0, 1)
  ]  # fmt: skip
  x = b.concat(rows, 2)
  x = b.reshape(x, 2 * height + 2, 2 * width + 2, channels)
  starts = [1 + n for n in window.first]
  stops = [a + n for a, n in zip(starts, window.size, strict=True)]
  return b.slice(x, starts, stops, [1, 2])


def cut(b: Writer, x: Any, size: Any, window: Window, axes: Any) -> Any:
  """Crops an output along two axes to what a window keeps of it."""
  if tuple(size) == window.size and not any(window.first):
    return x
  stops = [a + n for a, n in zip(window.first, window.size, strict=True)]
  return b.slice(x, list(window.first), stops, list(axes))
