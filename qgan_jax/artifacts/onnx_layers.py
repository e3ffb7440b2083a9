"""A plan's layers in ONNX: in float, and in integers for each runtime.

`transposed`: `Conv`, `ConvTranspose` and `MatMul` in QDQ form, channels first.
  OpenVINO runs them in integers. ONNX Runtime has no integer transposed
  convolution and would silently run it in float, and its integer convolution
  rounds its output to bytes. Without quantization it is the float graph.
`gathered`: the matrix products of `gathered`, channels last.

A split layer gets its inputs twice and its codes in two parts. In both forms
these are the same products, written as a layer of twice the inputs and smaller
codes.
"""

from typing import Any

import numpy as np

from qgan_jax.artifacts.gathered import cut, Order
from qgan_jax.artifacts.layer import full_size, Layer, of_ones, Window
from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.artifacts.onnx_builder import Builder
from qgan_jax.errors import UserError

Array = np.ndarray


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


class Products(Builder):
  """A builder that can also multiply codes by weights."""

  def product(self, codes: str, layer: Layer, order: Order = _same) -> str:
    """Codes [.., K] times a weight in the form of `order`, [K, columns]."""
    if layer.split:
      codes = self.op('Concat', codes, codes, axis=-1)
    weight = _weight(self, layer, order, axis=1)
    return self.op('MatMul', _values(self, codes, layer.steps), weight)


def channels_first(b: Builder, x: str, layer: Layer, window: Window, size: Any):
  """A layer from codes [B, I, h, w] to floats [B, O, H, W]; size is (h, w)."""
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
    offset = _of_zero(layer, steps, window, size)
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
  return cut(b, x, full_size(window, kernel, size), window, (2, 3))


def _of_zero(layer: Layer, steps: Steps, window: Window, size: Any) -> Array:
  """[O, H, W]: what a transposed convolution makes of the codes of 0."""
  ones = of_ones(layer.kernel, window, size).transpose(2, 0, 1)
  return steps.scale * steps.zero_point * ones.astype(np.float32)


def _twice(b: Builder, x: str, inputs: int, groups: int, size: Any) -> str:
  """The channels of every group twice, one behind the other."""
  if groups == 1:
    return b.op('Concat', x, x, axis=1)
  x = b.reshape(x, groups, inputs, *size)
  x = b.op('Concat', x, x, axis=2)
  return b.reshape(x, 2 * groups * inputs, *size)


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

  Statistics are computed for each channel and then averaged over the group, so
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
