"""A generator's ONNX graphs: in float, and in the integers of each runtime.

`transposed`: `ConvTranspose` in QDQ form, channels first. OpenVINO runs it in
  integers. ONNX Runtime has no integer transposed convolution and would run it
  in float, silently. Without quantization it is the float graph.
`gathered`: every transposed convolution as the matrix products that it is,
  channels last, which ONNX Runtime runs in integers. An output pixel is, for
  its phase (row and column odd or even), a product with a 2×2 window of the
  input: windows are gathered as bytes and multiplied with four matrices. A
  convolution of integers has to round its output to bytes there, and this
  has not: what it computes is what was trained.

A layer that is split gets its inputs twice and its codes in two parts: the
same products, in both, as a layer of twice the inputs and smaller codes.

GroupNorm and tanh stay in float in both, as in training.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.artifacts.onnx_builder import Builder
from qgan_jax.artifacts.plan import Layer, Norm, Plan

FORMS = ('transposed', 'gathered')
# Up to here, adding up what overlaps costs less than gathering windows.
_FEW_CHANNELS = 4


def onnx_model(plan: Plan, form: str, metadata: Mapping[str, Any]) -> bytes:
  """The ONNX file of a generator.

  Its inputs are `latents`, float32 [batch, latent_dim], and `labels`, int64
  [batch], of a conditional generator; its output is `images`, float32
  [batch, H, W, C] in [−1, 1].

  Args:
    plan: of integers or of floats; `gathered` needs integers.
    form: 'transposed' or 'gathered'.
    metadata: what the file says of itself; the form and the shapes are added.

  Returns:
    The file's content.
  """
  make = {'transposed': _transposed, 'gathered': _gathered}[form]
  builder = Builder(least_bits=2 if form == 'gathered' else 4)
  output = make(builder, _inputs(builder, plan), plan)
  return builder.model(
    output,
    plan.shape,
    {
      **metadata,
      'version': 1,
      'form': form,
      'integer': plan.layers[0].codes is not None,
      'needs_vnni': plan.needs_vnni,
      'latent_dim': plan.latent_dim,
      'num_classes': plan.num_classes,
      'image_shape': plan.shape,
    },
  )


def _inputs(b: Builder, plan: Plan) -> str:
  x = b.input('latents', 'FLOAT', plan.latent_dim)
  if not plan.num_classes:
    return x
  one_hot = b.op(
    'OneHot',
    b.input('labels', 'INT64'),
    b.constant(np.int64(plan.num_classes)),
    b.constant(np.array([0, 1], np.float32)),
  )
  return b.op('Concat', x, one_hot, axis=1)


def _weight(b: Builder, layer: Layer, order: Any, axis: int) -> str:
  """A layer's weight, brought into the order that an operation takes.

  Args:
    b: the builder.
    layer: the layer.
    order: maps [4, 4, I, O] to any shape.
    axis: of its result that the scales belong to: (pixels and) channels.
  """
  if layer.codes is None:
    return b.constant(np.ascontiguousarray(order(layer.kernel)))
  codes = np.ascontiguousarray(order(layer.codes.codes))
  scales = np.broadcast_to(layer.codes.scales, layer.kernel.shape)
  # Taken through the same order, they stay with their channels.
  others = tuple(i for i in range(codes.ndim) if i != axis)
  return b.weight(
    Codes(codes, order(scales).max(axis=others)), axis, split=layer.split
  )


def _turned(kernel: np.ndarray) -> np.ndarray:
  # Flax does not turn the kernel round; a transposed convolution does.
  return kernel[::-1, ::-1]


def _fake_quantized(b: Builder, x: str, layer: Layer) -> str:
  if layer.steps is None:
    return x
  codes = b.quantize(x, layer.steps)
  if layer.split:
    codes = b.op('Concat', codes, codes, axis=1)
  return b.dequantize(codes, layer.steps)


def _transposed(b: Builder, x: str, plan: Plan) -> str:
  side = 4
  for i, layer in enumerate(plan.layers):
    channels = layer.kernel.shape[-1]
    x = _fake_quantized(b, x, layer)
    if i == 0:
      weight = _weight(
        b,
        layer,
        lambda k: _turned(k).transpose(2, 3, 0, 1).reshape(k.shape[2], -1),
        axis=1,
      )
      x = b.reshape(b.op('MatMul', x, weight), channels, 4, 4)
      if layer.bias.any():
        x = b.op('Add', x, b.constant(layer.bias[:, None, None]))
    else:
      weight = _weight(
        b, layer, lambda k: _turned(k).transpose(2, 3, 0, 1), axis=1
      )
      cut = 2 * side - layer.size
      x = b.op(
        'ConvTranspose',
        x,
        weight,
        b.constant(layer.bias),
        kernel_shape=[4, 4],
        strides=[2, 2],
        pads=[1, 1, 1 + cut, 1 + cut],
      )
      side = layer.size
    if layer.norm is not None:
      x = b.op(
        'GroupNormalization',
        x,
        b.constant(layer.norm.gain),
        b.constant(layer.norm.bias),
        num_groups=channels // layer.norm.group_size,
        epsilon=layer.norm.epsilon,
      )
    if layer is not plan.layers[-1]:
      x = b.op('Relu', x)
  return b.op('Transpose', b.op('Tanh', x), perm=[0, 2, 3, 1])


def _gathered(b: Builder, x: str, plan: Plan) -> str:
  side = 4
  for i, layer in enumerate(plan.layers):
    codes = b.quantize(x, _steps(layer))
    channels = layer.kernel.shape[-1]
    if i == 0:
      product = _product(
        b,
        codes,
        layer,
        lambda k: _turned(k).transpose(2, 0, 1, 3).reshape(k.shape[2], -1),
      )
      x = b.reshape(product, 4, 4, channels)
    elif channels <= _FEW_CHANNELS:
      x = _overlapped(b, codes, layer, side)
    else:
      x = _windows(b, codes, layer, side)
    side = layer.size
    if layer.norm is not None:
      x = _group_norm(b, x, layer.norm, layer.bias)
    elif layer.bias.any():
      x = b.op('Add', x, b.constant(layer.bias))
    if layer is not plan.layers[-1]:
      x = b.op('Relu', x)
  return b.op('Tanh', x)


def _steps(layer: Layer) -> Steps:
  if layer.steps is None:
    raise ValueError(f'{layer.name} is not one of integers')
  return layer.steps


def _product(b: Builder, codes: str, layer: Layer, order: Any) -> str:
  """Codes [.., K] times the weight as `order` makes it, [K, columns]."""
  if layer.split:
    codes = b.op('Concat', codes, codes, axis=-1)
  values = b.dequantize(codes, _steps(layer))
  return b.op('MatMul', values, _weight(b, layer, order, axis=1))


def _windows(b: Builder, codes: str, layer: Layer, side: int) -> str:
  """[B, side, side, I] of bytes to [B, size, size, O] of floats."""
  channels = layer.kernel.shape[-1]
  padded = b.op(
    'Pad',
    codes,
    b.constant(np.array([0, 1, 1, 0, 0, 1, 1, 0])),
    b.constant(np.uint8(_steps(layer).zero_point)),
  )
  shifted = {
    (i, j): b.slice(padded, [i, j], [i + side, j + side], [1, 2])
    for i in range(3)
    for j in range(3)
  }
  rows = []
  for row in (0, 1):
    phases = []
    for column in (0, 1):
      window = [shifted[row + i, column + j] for i in (0, 1) for j in (0, 1)]

      def taps(k: np.ndarray, row: int = row, column: int = column):
        return k[row::2, column::2].reshape(-1, k.shape[-1])

      gathered = b.op('Concat', *window, axis=3)
      phases.append(_product(b, gathered, layer, taps))
    pairs = b.op('Concat', *phases, axis=3)
    rows.append(b.reshape(pairs, side, 1, 2 * side * channels))
  x = b.op('Concat', *rows, axis=2)
  x = b.reshape(x, 2 * side, 2 * side, channels)
  if layer.size < 2 * side:
    x = b.slice(x, [0, 0], [layer.size] * 2, [1, 2])
  return x


def _overlapped(b: Builder, codes: str, layer: Layer, side: int) -> str:
  """The same, by adding up the 4×4 pixels that each input pixel makes."""
  channels = layer.kernel.shape[-1]
  products = _product(
    b,
    codes,
    layer,
    lambda k: _turned(k).transpose(2, 0, 1, 3).reshape(k.shape[2], -1),
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
  width = (2 * side + 2) * channels
  rows = [
    b.reshape(overlap(lines[i], lines[i + 2], 1), side + 1, 1, width)
    for i in (0, 1)
  ]
  x = b.op('Concat', *rows, axis=2)
  x = b.reshape(x, 2 * side + 2, 2 * side + 2, channels)
  return b.slice(x, [1, 1], [1 + layer.size] * 2, [1, 2])


def _group_norm(b: Builder, x: str, norm: Norm, bias: np.ndarray) -> str:
  """GroupNorm of x + bias, channels last, as x · a + b.

  Statistics are taken for each channel and then averaged over the group, so
  that x itself is read twice and written once.
  """
  groups = len(norm.gain) // norm.group_size
  pixels = b.constant(np.array([1, 2]))
  last = b.constant(np.array([-1]))
  mean = b.op('ReduceMean', x, pixels)
  square = b.op('ReduceMean', b.op('Mul', x, x), pixels)
  if bias.any():
    # E(x + c)² = E x² + c · (2 E x + c).
    shift = b.constant(bias)
    twice = b.op('Add', b.op('Add', mean, mean), shift)
    square = b.op('Add', square, b.op('Mul', twice, shift))
    mean = b.op('Add', mean, shift)

  def grouped(value: str) -> str:
    return b.op('ReduceMean', b.reshape(value, groups, norm.group_size), last)

  mean, square = grouped(mean), grouped(square)
  variance = b.op('Sub', square, b.op('Mul', mean, mean))
  # Rounding may leave less than nothing of a constant feature map.
  variance = b.op('Relu', variance)
  variance = b.op('Add', variance, b.constant(np.float32(norm.epsilon)))
  deviation = b.op('Sqrt', variance)
  gain = norm.gain.reshape(groups, norm.group_size)
  factor = b.op('Div', b.constant(gain), deviation)
  offset = b.op('Sub', b.constant(bias.reshape(gain.shape)), mean)
  offset = b.op('Mul', offset, factor)
  offset = b.op('Add', offset, b.constant(norm.bias.reshape(gain.shape)))
  factor, offset = (
    b.reshape(value, 1, 1, len(norm.gain)) for value in (factor, offset)
  )
  return b.op('Add', b.op('Mul', x, factor), offset)
