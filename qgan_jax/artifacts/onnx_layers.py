"""A plan's layers in ONNX: in float, and in the integers of each runtime.

`transposed`: `Conv`, `ConvTranspose` and `MatMul` in QDQ form, channels first.
  OpenVINO runs them in integers. ONNX Runtime has no integer transposed
  convolution and would run it in float, silently, and its integer convolution
  rounds its output to bytes. Without quantization it is the float graph.
`gathered`: every convolution as the matrix products that it is, channels last,
  which ONNX Runtime runs in integers. Windows of the input are gathered as
  bytes and multiplied with a matrix; of a transposed convolution, an output
  pixel is, for its phase (of stride 2: row and column odd or even), a product
  with a window of its own. Where the outputs are fewer than what would be
  gathered, the products of all taps are added up instead.

A layer that is split gets its inputs twice and its codes in two parts: the
same products, in both, as a layer of twice the inputs and smaller codes.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from qgan_jax.artifacts.layer import Layer, Window
from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.artifacts.onnx_builder import Builder
from qgan_jax.errors import UserError

Array = np.ndarray
Order = Callable[[Array], Array]
# Up to here, adding up what overlaps costs less than gathering windows.
_FEW_CHANNELS = 4


def _weight(
  b: Builder, layer: Layer, order: Order, axis: int, inputs: int = 0
) -> str:
  """A layer's weight, brought into the order that an operation takes.

  Args:
    b: the builder.
    layer: the layer.
    order: maps the kernel to any shape.
    axis: of its result that the scales belong to: (pixels and) channels.
    inputs: axis of its result that is doubled where the layer is split.
  """
  if layer.codes is None:
    return b.constant(np.ascontiguousarray(order(layer.kernel)))
  codes = np.ascontiguousarray(order(layer.codes.codes))
  scales = np.broadcast_to(layer.codes.scales, layer.kernel.shape)
  # Taken through the same order, they stay with their channels.
  others = tuple(i for i in range(codes.ndim) if i != axis)
  found = Codes(codes, order(scales).max(axis=others))
  return b.weight(found, axis, split=inputs if layer.split else None)


def _values(b: Builder, codes: str, steps: Steps | None) -> str:
  return codes if steps is None else b.dequantize(codes, steps)


def _same(kernel: Array) -> Array:
  return kernel


def product(b: Builder, codes: str, layer: Layer, order: Order = _same) -> str:
  """Codes [.., K] times the weight as `order` makes it, [K, columns]."""
  if layer.split:
    codes = b.op('Concat', codes, codes, axis=-1)
  weight = _weight(b, layer, order, axis=1)
  return b.op('MatMul', _values(b, codes, layer.steps), weight)


def channels_first(b: Builder, x: str, layer: Layer, window: Window, size: Any):
  """[B, I, h, w] of codes, h and w in `size`, to [B, O, H, W] of floats."""
  kernel = layer.kernel.shape[:2]
  reach = [
    (k - 1) * d + 1 for k, d in zip(kernel, window.dilation, strict=True)
  ]
  if layer.split:
    x = _twice(b, x, layer.kernel.shape[2], window.groups, size)
  steps, offset = layer.steps, None
  if max(window.spread) > 1 and steps is not None and steps.zero_point:
    # OpenVINO's transposed convolutions know no zero point. What it adds to
    # every sum is known here: the codes of an input that is 0 everywhere.
    offset = steps.scale * steps.zero_point * _of_ones(layer, window, size)
    steps = steps._replace(zero_point=0)
  x = _values(b, x, steps)
  common: dict[str, Any] = {
    'kernel_shape': kernel,
    'dilations': window.dilation,
    'group': window.groups,
  }
  bias = b.constant(layer.bias)
  if max(window.spread) > 1:
    before = [
      k - 1 - lo + first
      for k, (lo, _), first in zip(
        reach, window.padding, window.first, strict=True
      )
    ]
    behind = [
      s * (n - 1) + k - lo - out
      for s, n, k, lo, out in zip(
        window.spread, size, reach, before, window.size, strict=True
      )
    ]
    if min(before + behind) < 0:
      raise UserError(
        f'{layer.name} is a transposed convolution with more padding than a '
        'graph can hold: export it as packed or stablehlo'
      )
    # JAX does not turn the kernel round; a transposed convolution does.
    weight = _weight(
      b, layer, lambda k: k[::-1, ::-1].transpose(2, 3, 0, 1), axis=1
    )
    y = b.op('ConvTranspose', x, weight, bias, strides=window.spread,
             pads=before + behind, **common)  # fmt: skip
    return y if offset is None else b.op('Sub', y, b.constant(offset))
  weight = _weight(
    b, layer, lambda k: k.transpose(3, 2, 0, 1), axis=0, inputs=1
  )
  (top, bottom), (left, right) = window.padding
  x = b.op('Conv', x, weight, bias, strides=window.strides,
           pads=[top, left, bottom, right], **common)  # fmt: skip
  return _cut(b, x, _outputs(window, kernel, size), window, (2, 3))


def _of_ones(layer: Layer, window: Window, size: Any) -> Array:
  """[O, H, W]: what a transposed convolution makes of an input of ones."""
  kernel = np.asarray(layer.kernel, np.float64).sum(2)
  full = _outputs(window, kernel.shape[:2], size)
  sums = np.zeros((*full, kernel.shape[-1]))
  (top, _), (left, _) = window.padding
  for i, j in np.ndindex(kernel.shape[:2]):
    # Output o reads pixel (o + tap − padding) / spread, where that is whole.
    rows, columns = (
      [spread * n + low - tap * dilation for n in range(count)]
      for spread, low, tap, dilation, count in zip(
        window.spread, (top, left), (i, j), window.dilation, size, strict=True
      )
    )
    for row in filter(range(full[0]).__contains__, rows):
      for column in filter(range(full[1]).__contains__, columns):
        sums[row, column] += kernel[i, j]
  kept = tuple(
    slice(a, a + n) for a, n in zip(window.first, window.size, strict=True)
  )
  return sums[kept].transpose(2, 0, 1).astype(np.float32)


def _twice(b: Builder, x: str, inputs: int, groups: int, size: Any) -> str:
  """The channels of every group twice, one behind the other."""
  if groups == 1:
    return b.op('Concat', x, x, axis=1)
  x = b.reshape(x, groups, inputs, *size)
  x = b.op('Concat', x, x, axis=2)
  return b.reshape(x, 2 * groups * inputs, *size)


def _outputs(window: Window, kernel: Any, size: Any) -> list[int]:
  """Height and width before anything is cut off."""
  return [
    (s * (n - 1) + 1 + lo + hi - (k - 1) * d - 1) // stride + 1
    for s, n, (lo, hi), k, d, stride in zip(
      window.spread, size, window.padding, kernel, window.dilation,
      window.strides, strict=True,
    )
  ]  # fmt: skip


def _cut(b: Builder, x: str, size: Any, window: Window, axes: Any) -> str:
  if tuple(size) == window.size and not any(window.first):
    return x
  stops = [a + n for a, n in zip(window.first, window.size, strict=True)]
  return b.slice(x, list(window.first), stops, list(axes))


def channels_last(b: Builder, x: str, layer: Layer, window: Window, size: Any):
  """[B, h, w, I] of codes to [B, H, W, O] of floats; its bias is left out."""
  kernel, inputs = layer.kernel.shape[:2], layer.kernel.shape[2]
  outputs = layer.kernel.shape[3]
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
  full = _outputs(window, kernel, size)
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
  return _cut(b, x, spread, window, (1, 2))


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
  (height, width), channels = layer.kernel.shape[:2], layer.kernel.shape[3]
  x = product(
    b, x, layer, lambda k: k.transpose(2, 0, 1, 3).reshape(k.shape[2], -1)
  )
  full = _outputs(window, (height, width), size)
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
  return _cut(b, x, full, window, (1, 2))


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


def group_norm(
  b: Builder,
  x: str,
  shift: Array | None,
  scale: Array,
  bias: Array,
  group_size: int,
  epsilon: float,
) -> str:
  """GroupNorm of x + shift, channels last, as x · a + b.

  Statistics are taken for each channel and then averaged over the group, so
  that x itself is read twice and written once.
  """
  groups = len(scale) // group_size
  pixels = b.constant(np.array([1, 2]))
  last = b.constant(np.array([-1]))
  mean = b.op('ReduceMean', x, pixels)
  square = b.op('ReduceMean', b.op('Mul', x, x), pixels)
  if shift is not None:
    # E(x + c)² = E x² + c · (2 E x + c).
    added = b.constant(shift)
    twice = b.op('Add', b.op('Add', mean, mean), added)
    square = b.op('Add', square, b.op('Mul', twice, added))
    mean = b.op('Add', mean, added)

  def grouped(value: str) -> str:
    return b.op('ReduceMean', b.reshape(value, groups, group_size), last)

  mean, square = grouped(mean), grouped(square)
  variance = b.op('Sub', square, b.op('Mul', mean, mean))
  # Rounding may leave less than nothing of a constant feature map.
  variance = b.op('Relu', variance)
  variance = b.op('Add', variance, b.constant(np.float32(epsilon)))
  deviation = b.op('Sqrt', variance)
  gain = scale.reshape(groups, group_size)
  moved = np.zeros_like(scale) if shift is None else shift
  factor = b.op('Div', b.constant(gain), deviation)
  offset = b.op('Sub', b.constant(moved.reshape(gain.shape)), mean)
  offset = b.op('Mul', offset, factor)
  offset = b.op('Add', offset, b.constant(bias.reshape(gain.shape)))
  factor, offset = (
    b.reshape(value, 1, 1, len(scale)) for value in (factor, offset)
  )
  return b.op('Add', b.op('Mul', x, factor), offset)
