"""Convolutions as matrix products in ONNX, channels last.

ONNX Runtime runs products in integers, but no transposed convolution, and its
integer convolution rounds its output to bytes, which training has not. Windows
of the input are gathered as bytes and multiplied with a matrix; of a transposed
convolution, an output pixel is, for its phase (of stride 2: row and column odd
or even), a product with a window of its own. Where the outputs are fewer than
what would be gathered, the products of all taps are added up instead.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from qgan_jax.artifacts.layer import full_size, Layer, Window
from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.artifacts.onnx_builder import Builder
from qgan_jax.artifacts.onnx_layers import cut, product
from qgan_jax.errors import UserError

Array = np.ndarray
# Up to here, adding up what overlaps costs less than gathering windows.
_FEW_CHANNELS = 4


def channels_last(b: Builder, x: str, layer: Layer, window: Window, size: Any):
  """A convolution of codes [B, h, w, I] to floats [B, H, W, O].

  Args:
    b: the builder.
    x: the codes.
    layer: its bias is left out.
    window: of the layer.
    size: (h, w).

  Raises:
    UserError: it is a transposed one of a kind that this cannot write.
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
    return b.op('Concat', *parts, axis=3)
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
  b: Builder, x: str, layer: Layer, window: Window, size: Any
) -> str:
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
  x = _padded(b, x, padding, layer.steps)
  found: dict[Any, str] = {}

  def shifted(place: tuple[int, ...]) -> str:
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
      gathered = b.op('Concat', *taps, axis=3) if len(taps) > 1 else taps[0]

      def own(k: Array, row: _Phase = row, column: _Phase = column) -> Array:
        k = k[row.first :: window.spread[0], column.first :: window.spread[1]]
        return k.reshape(-1, channels)

      products.append(product(b, gathered, layer, own))
    rows.append(products)
  x = _interleaved(b, rows, counts, channels)
  spread = [n * s for n, s in zip(counts, window.spread, strict=True)]
  return cut(b, x, spread, window, (1, 2))


def _padded(b: Builder, x: str, padding: Any, steps: Steps | None) -> str:
  (top, bottom), (left, right) = padding
  if not any((top, bottom, left, right)):
    return x
  zero = np.float32(0) if steps is None else np.uint8(steps.zero_point)
  pads = np.array([0, top, left, 0, 0, bottom, right, 0])
  return b.op('Pad', x, b.constant(pads), b.constant(zero))


def _interleaved(
  b: Builder, rows: list[list[str]], counts: Any, channels: int
) -> str:
  """[B, h, w, O] of every phase to [B, H, W, O]."""
  if len(rows) == len(rows[0]) == 1:
    return rows[0][0]
  height, width = counts
  lines = []
  for phases in rows:
    pairs = b.op('Concat', *phases, axis=3)
    lines.append(b.reshape(pairs, height, 1, len(phases) * width * channels))
  x = b.op('Concat', *lines, axis=2)
  return b.reshape(x, len(rows) * height, len(rows[0]) * width, channels)


def _added_up(
  b: Builder, x: str, layer: Layer, window: Window, size: Any
) -> str:
  """By adding up the products of each tap, moved to where they belong."""
  height, width = layer.kernel.shape[:2]
  x = product(
    b, x, layer, lambda k: k.transpose(2, 0, 1, 3).reshape(k.shape[2], -1)
  )
  full = full_size(window, (height, width), size)
  for axis, taps in ((1, height), (2, width)):
    if taps == 1 and not any(window.padding[axis - 1]):
      continue
    parts = b.op('Split', x, outputs=taps, axis=3, num_outputs=taps)
    moved = []
    for tap, part in enumerate(parts if taps > 1 else [parts]):
      # What lies outside of the input is 0; negative pads cut off.
      pads = np.zeros(8, np.int64)
      pads[axis] = window.padding[axis - 1][0] - tap
      pads[4 + axis] = full[axis - 1] - size[axis - 1] - pads[axis]
      moved.append(b.op('Pad', part, b.constant(pads)) if pads.any() else part)
    x = b.op('Sum', *moved)
  return cut(b, x, full, window, (1, 2))


def _overlapped(
  b: Builder, x: str, layer: Layer, window: Window, size: Any
) -> str:
  """By adding up the 4×4 pixels that each input pixel makes."""
  channels = layer.kernel.shape[-1]
  height, width = size
  products = product(
    b,
    x,
    layer,
    lambda k: k[::-1, ::-1].transpose(2, 0, 1, 3).reshape(k.shape[2], -1),
  )

  def overlap(x: str, y: str, axis: int) -> str:
    before, after = np.zeros(8, np.int64), np.zeros(8, np.int64)
    before[axis] = after[4 + axis] = 1
    x = b.op('Pad', x, b.constant(after))
    return b.op('Add', x, b.op('Pad', y, b.constant(before)))

  lines = []
  for taps in b.op('Split', products, outputs=4, axis=3, num_outputs=4):
    left, right = b.op('Split', taps, outputs=2, axis=3, num_outputs=2)
    lines.append(overlap(left, right, 2))
  rows = [
    b.reshape(
      overlap(lines[i], lines[i + 2], 1),
      height + 1, 1, (2 * width + 2) * channels,
    )
    for i in (0, 1)
  ]  # fmt: skip
  x = b.op('Concat', *rows, axis=2)
  x = b.reshape(x, 2 * height + 2, 2 * width + 2, channels)
  starts = [1 + n for n in window.first]
  stops = [a + n for a, n in zip(starts, window.size, strict=True)]
  return b.slice(x, starts, stops, [1, 2])
