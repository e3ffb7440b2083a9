"""A plan's products with weights as LiteRT's operators, channels last."""

from typing import Any, NamedTuple

import numpy as np

from qgan_jax.artifacts.gathered import cut, Order
from qgan_jax.artifacts.layer import full_size, Layer, Window
from qgan_jax.artifacts.levels import Steps
from qgan_jax.artifacts.tflite_builder import Builder, Scales, Value
from qgan_jax.errors import UserError

Array = np.ndarray
_SAME, _VALID = 0, 1  # Of the schema's `Padding`.
MAX_BYTE = 127


class Product(NamedTuple):
  """The weights of a product, and the form of its output.

  Attributes:
    kernel: as in JAX, [K, N] or [h, w, I, O]; int8 or float32.
    scales: of each output channel; None in float.
    bias: of each output channel; None for no bias.
    dtype: of the output.
    rounded: the scales of integers in the output.
    relu: whether values below 0 become 0.
  """

  kernel: Array
  scales: Array | None
  bias: Value | None
  dtype: Any = np.float32
  rounded: Scales | None = None
  relu: bool = False


def scales_of(steps: Steps) -> Scales:
  """A quantizer's codes as signed bytes, the highest of which is 127.

  So the range of bytes ends with the levels, and nothing above has to be
  clipped.
  """
  zero_point = MAX_BYTE - (steps.levels - 1 - steps.zero_point)
  return Scales(steps.scale, zero_point, steps.offset)


class Products(Builder):
  """A builder that can also multiply matrices of bytes."""

  def product(self, codes: Value, layer: Layer, order: Order) -> Value:
    """Codes [.., K] times a weight in the form of `order`, [K, columns].

    The result is floats. Sums are whole: 32 bits, and no product is rounded.
    """
    assert layer.codes is not None and layer.steps is not None
    weight = order(layer.codes.codes)
    factors = order(np.broadcast_to(layer.codes.scales, layer.kernel.shape))
    factors = layer.steps.scale * factors.max(0).astype(np.float64)
    # It multiplies bytes as they are: what those of 0 add up to is taken off.
    zero_point = scales_of(layer.steps).zero_point
    zeros = zero_point * weight.sum(0) * factors
    if weight.min() < -MAX_BYTE:
      # Kernels for ARM may add two products in 16 bits, which those of −128
      # overflow: the inputs twice, and half of each weight.
      codes = self.concat([codes, codes], len(codes.shape) - 1)
      weight = np.concatenate([weight // 2, weight - weight // 2])
    rows = self.shaped(codes, (1, -1, codes.shape[-1]))
    columns = weight.shape[-1]
    sums = self.op(
      'BATCH_MATMUL',
      [rows, self.constant(weight[None].astype(np.int8), Scales(1.0))],
      (*rows.shape[:2], columns),
      np.int32,
      Scales(layer.steps.scale),
      options='BatchMatMul',
    )
    y = self.op('CAST', [sums], sums.shape)
    for kind, options, values in (
      ('MUL', 'Mul', factors), ('SUB', 'Sub', zeros)
    ):  # fmt: skip
      numbers = self.constant(values.astype(np.float32))
      y = self.op(kind, [y, numbers], y.shape, options=options)
    return self.shaped(y, (*codes.shape[:-1], columns))


def written(b: Builder, x: Value, layer: Layer, product: Product) -> Value:
  """Writes a product.

  Args:
    b: the graph's builder.
    x: the layer's input, [1, …, K] or [1, h, w, I].
    layer: gives its windows and the shape of its output.
    product: its weights, and the form of its output.

  Raises:
    UserError: LiteRT has no operator for it.
  """
  window = layer.window
  if window is None:
    return _dense(b, x, layer, product)
  if max(window.spread) > 1:
    return _transposed(b, x, layer, window, product)
  return _convolution(b, x, window, product)


def _weight(b: Builder, product: Product, kernel: Array) -> Value:
  """A kernel with the output's channels first, as all operators take it."""
  scales = None if product.scales is None else Scales(product.scales)
  kernel = np.ascontiguousarray(np.moveaxis(kernel, -1, 0))
  return b.constant(kernel, scales)


def _dense(b: Builder, x: Value, layer: Layer, product: Product) -> Value:
  rows = b.shaped(x, (-1, x.shape[-1]))
  y = b.op(
    'FULLY_CONNECTED',
    [rows, _weight(b, product, product.kernel), product.bias],
    (rows.shape[0], product.kernel.shape[-1]),
    product.dtype,
    product.rounded,
    options='FullyConnected',
    fusedActivationFunction=int(product.relu),
  )
  return b.shaped(y, (*x.shape[:-1], *layer.columns))


def _convolution(
  b: Builder, x: Value, window: Window, product: Product
) -> Value:
  kernel, size = product.kernel.shape[:2], x.shape[1:3]
  full = full_size(window, kernel, size)
  wanted = []
  for k, d, s, n, out in zip(
    kernel, window.dilation, window.strides, size, full, strict=True
  ):
    total = max(0, (out - 1) * s + (k - 1) * d + 1 - n)
    # As much as to have one output for each stride, the odd one behind.
    same = (total // 2, total - total // 2) if out == -(-n // s) else None
    wanted.append(same)
  padding = _SAME
  if window.padding != tuple(wanted):
    padding = _VALID
    x = b.padded(x, dict(enumerate(window.padding, 1)))
  y = b.op(
    'CONV_2D',
    [x, _weight(b, product, product.kernel), product.bias],
    (x.shape[0], *full, product.kernel.shape[-1]),
    product.dtype,
    product.rounded,
    options='Conv2D',
    padding=padding,
    strideH=window.strides[0],
    strideW=window.strides[1],
    dilationHFactor=window.dilation[0],
    dilationWFactor=window.dilation[1],
    fusedActivationFunction=int(product.relu),
  )
  return cut(b, y, full, window, (1, 2))


def _transposed(
  b: Builder, x: Value, layer: Layer, window: Window, product: Product
) -> Value:
  kernel = product.kernel
  reach = [
    (k - 1) * d + 1
    for k, d in zip(kernel.shape[:2], window.dilation, strict=True)
  ]
  if max(window.dilation) > 1:
    # It knows no dilation: zeros between the taps are the same.
    spaced = np.zeros((*reach, *kernel.shape[2:]), kernel.dtype)
    spaced[:: window.dilation[0], :: window.dilation[1]] = kernel
    kernel = spaced
  full = [
    s * (n - 1) + k
    for s, n, k in zip(window.spread, x.shape[1:3], reach, strict=True)
  ]
  before = [
    k - 1 - low + first
    for k, (low, _), first in zip(
      reach, window.padding, window.first, strict=True
    )
  ]
  behind = [
    n - low - out for n, low, out in zip(full, before, window.size, strict=True)
  ]
  if min(before + behind) < 0:
    raise UserError(
      f'{layer.name} is a transposed convolution with more padding than LiteRT '
      'can hold: export it as packed or stablehlo'
    )
  same = all(
    low == (low + high) // 2 and out == n * s
    for low, high, out, n, s in zip(
      before, behind, window.size, x.shape[1:3], window.spread, strict=True
    )
  )
  size = window.size if same else full
  shape = x.shape[0], *size, kernel.shape[-1]
  # JAX does not turn the kernel round; a transposed convolution does.
  weight = _weight(b, product, kernel[::-1, ::-1])
  inputs = [b.constant(np.array(shape, np.int32)), weight, x]
  y = b.op(
    'TRANSPOSE_CONV',
    inputs if product.bias is None else [*inputs, product.bias],
    shape,
    product.dtype,
    product.rounded,
    options='TransposeConv',
    padding=_SAME if same else _VALID,
    strideH=window.spread[0],
    strideW=window.spread[1],
    fusedActivationFunction=int(product.relu),
  )
  if same:
    return y
  stops = [low + n for low, n in zip(before, window.size, strict=True)]
  return b.slice(y, before, stops, [1, 2])
