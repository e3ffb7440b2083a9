"""A plan's layers in LiteRT: rounded to bytes, as whole sums, or in float.

LiteRT's integer kernels of layers round their output to bytes. If the network
itself rounds it, by the quantizer of the next layer with at most a ReLU before,
the output is the codes of that quantizer: `in_bytes`. Elsewhere, as before a
norm, a residual sum or a tanh, nothing may be rounded: `in_sums` multiplies
matrices of bytes, for which LiteRT returns the whole sums, in 32 bits.
"""

import numpy as np

from qgan_jax.artifacts.gathered import channels_last
from qgan_jax.artifacts.layer import Layer
from qgan_jax.artifacts.levels import Steps
from qgan_jax.artifacts.tflite_builder import Builder, Scales, Value
from qgan_jax.artifacts.tflite_products import (
  MAX_BYTE,
  Product,
  Products,
  scales_of,
  written,
)

Array = np.ndarray
# With fewer levels it shows where one next to a half is rounded the other way.
_MANY_LEVELS = 64


def quantized(b: Builder, x: Value, steps: Steps) -> Value:
  """Quantizes numbers to codes."""
  if steps.offset:
    offset = b.constant(np.float32(steps.offset))
    x = b.op('SUB', [x, offset], x.shape, options='Sub')
  codes = b.op('QUANTIZE', [x], x.shape, np.int8, scales_of(steps))
  return _clipped(b, codes, steps)


def _clipped(b: Builder, codes: Value, steps: Steps) -> Value:
  """Codes without the bytes below the lowest level."""
  if steps.levels > 2 * MAX_BYTE + 1:
    return codes
  lowest = b.constant(np.int8(MAX_BYTE + 1 - steps.levels), codes.scales)
  return b.op('MAXIMUM', [codes, lowest], codes.shape, np.int8, codes.scales)


def gives_bytes(layer: Layer, steps: Steps) -> bool:
  """Whether `in_bytes` can round a layer to the codes of a quantizer.

  A weight's codes have to be bytes from −127 to 127. Codes of a channel with a
  negative scale are negated, and ARM kernels add two products in 16 bits, which
  those of −128 would overflow.
  """
  assert layer.codes is not None
  fits = bool((np.abs(layer.codes.codes) <= MAX_BYTE).all())
  return fits and not steps.offset and steps.levels >= _MANY_LEVELS


def in_bytes(b: Builder, x: Value, layer: Layer, steps: Steps) -> Value:
  """A layer whose output is rounded to the codes of a quantizer.

  Args:
    b: the graph's builder.
    x: codes of its input.
    layer: in integers.
    steps: of the quantizer, for which `gives_bytes` is true.
  """
  codes, scales, scale = _integers(layer)
  codes, scales = codes * np.sign(scales).astype(codes.dtype), np.abs(scales)
  # A bias is a whole multiple of the smallest product. Codes of few bits are
  # made larger, so that it is fine enough, and comes as near as it can.
  most = np.maximum(np.abs(codes).max(tuple(range(codes.ndim - 1))), 1)
  times = np.arange(1, MAX_BYTE + 1)[:, None]
  parts = times * layer.bias / (scale * scales.astype(np.float64))
  off = np.abs(parts - np.rint(parts)) / times
  off[(times > MAX_BYTE // most) | (times <= MAX_BYTE // most // 2)] = np.inf
  times = 1 + off.argmin(0)
  smallest = np.float32(scale) * (scales / times).astype(np.float32)
  bias = np.rint(layer.bias / smallest.astype(np.float64))
  limits = np.iinfo(np.int32)
  bias = np.clip(bias, limits.min, limits.max).astype(np.int32)
  # A ReLU has been taken into a quantizer without codes below 0: bytes below
  # its zero point are none of its levels.
  relu = steps.zero_point == 0
  product = Product(
    (codes * times).astype(np.int8),
    (scales / times).astype(np.float32),
    b.constant(bias, Scales(smallest)),
    np.int8,
    scales_of(steps),
    relu,
  )
  y = written(b, x, layer, product)
  return y if relu else _clipped(b, y, steps)


def in_sums(b: Products, x: Value, layer: Layer) -> Value:
  """A layer in integers whose output is not rounded.

  Args:
    b: the graph's builder.
    x: codes of its input.
    layer: any layer in integers.

  Raises:
    UserError: it is a transposed convolution that cannot be written as a matrix
      product.
  """
  if layer.window is None:
    y = b.product(x, layer, lambda kernel: kernel)
    whole = (*x.shape[:-1], *layer.columns)
  else:
    y = channels_last(b, x, layer, layer.window, x.shape[1:3])
    whole = y.shape
  if layer.bias.any():
    bias = b.constant(layer.bias.astype(np.float32))
    y = b.op('ADD', [y, bias], y.shape, options='Add')
  return b.shaped(y, whole)


def in_float(b: Builder, x: Value, layer: Layer) -> Value:
  """A layer in which only the weights are rounded."""
  kernel, bias = (v.astype(np.float32) for v in (layer.kernel, layer.bias))
  return written(b, x, layer, Product(kernel, None, b.constant(bias)))


def _integers(layer: Layer) -> tuple[Array, Array, float]:
  """Codes and scales of the weight, and the scale of the input."""
  assert layer.codes is not None and layer.steps is not None
  return *layer.codes, layer.steps.scale
