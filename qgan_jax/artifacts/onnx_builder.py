"""Writes ONNX graphs: nodes, constants, and quantization in QDQ form."""

from collections.abc import Mapping, Sequence
import functools
import json
from typing import Any

import numpy as np

from qgan_jax import errors
from qgan_jax.artifacts.drawer import METADATA_KEY
from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.artifacts.onnx_file import sealed

# Bits of the smallest tensors → (opset, version of the format): the first that
# have them. OpenVINO 2026.4 reads none of 2 bits, ONNX Runtime 1.32 does.
_VERSIONS = {4: (21, 10), 2: (25, 13)}


# Imports a module of that extra, or says how to get it.
require = functools.partial(errors.require, extra='onnx')


class Builder:
  """Builds an ONNX graph; tensors are identified by their names.

  Args:
    least_bits: 4 or 2, the smallest integers that the runtime can read as
      constants.
  """

  def __init__(self, least_bits: int) -> None:
    self._onnx = require('onnx')
    self._least_bits = least_bits
    self._bits = 4  # That the graph has come down to.
    self._nodes: list[Any] = []
    self._constants: dict[str, Any] = {}
    self._inputs: list[Any] = []

  def input(self, name: str, dtype: str, *shape: int) -> str:
    """Declares an input with a batch axis of any size before `shape`."""
    kind = getattr(self._onnx.TensorProto, dtype)
    self._inputs.append(
      self._onnx.helper.make_tensor_value_info(name, kind, ['batch', *shape])
    )
    return name

  def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any):
    """Adds a node; returns its output's name, or a list of them."""
    names = [f'{kind}_{len(self._nodes)}_{i}' for i in range(outputs)]
    self._nodes.append(
      self._onnx.helper.make_node(
        kind, inputs, names, name=names[0], **attributes
      )
    )
    return names[0] if outputs == 1 else names

  def cast(self, x: str, dtype: Any) -> str:
    """The same values as another type; floats of any size become float32."""
    dtype = np.dtype(dtype)
    floating = np.issubdtype(dtype, np.floating) or dtype.kind == 'V'
    types = self._onnx.helper.np_dtype_to_tensor_dtype
    kind = types(np.dtype(np.float32) if floating else dtype)
    return self.op('Cast', x, to=kind)

  def constant(self, value: Any) -> str:
    """Adds an initializer; equal ones are stored once."""
    tensor = self._onnx.numpy_helper.from_array(np.asarray(value))
    key = tensor.SerializeToString().hex()
    if key not in self._constants:
      tensor.name = f'c{len(self._constants)}'
      self._constants[key] = tensor
    return self._constants[key].name

  def integers(self, codes: np.ndarray) -> str:
    """Signed integers of at most 8 bits, stored in 4 or 2 if they fit."""

    def fit(bits: int) -> bool:
      half = 2 ** (bits - 1)
      return bool(((-half <= codes) & (codes < half)).all())

    if not fit(4):
      return self.constant(codes.astype(np.int8))
    small = require('ml_dtypes')
    kind = small.int4
    if fit(2) and self._least_bits == 2:
      kind, self._bits = small.int2, 2
    # Unpacked once, at load time: the products are those of bytes.
    packed = self.constant(codes.astype(kind))
    return self.op('Cast', packed, to=self._onnx.TensorProto.INT8)

  def weight(self, codes: Codes, axis: int, *, split: int | None = None) -> str:
    """A weight from its codes.

    Args:
      codes: from −128 to 127.
      axis: axis that the scales belong to.
      split: an axis to double, with every code written as a sum of two codes
        within ±64; None to leave the codes as they are.
    """
    integers = self.integers(codes.codes)
    if split is not None:
      integers = self._split(integers, split)
    zeros = np.zeros(codes.scales.shape, np.int8)
    return self.op(
      'DequantizeLinear',
      integers,
      self.constant(codes.scales),
      self.constant(zeros),
      axis=axis,
    )

  def _split(self, integers: str, axis: int) -> str:
    """Two addends within ±64, one behind the other along an axis.

    Runtimes compute them when they load the file, which holds every code once.
    """
    types = self._onnx.TensorProto
    wide = self.op('Cast', integers, to=types.INT32)
    low, high = (self.constant(np.int32(limit)) for limit in (-64, 64))
    first = self.op('Clip', wide, low, high)
    both = self.op('Concat', first, self.op('Sub', wide, first), axis=axis)
    return self.op('Cast', both, to=types.INT8)

  def quantize(self, x: str, steps: Steps) -> str:
    """Codes of x, uint8."""
    if steps.offset:
      x = self.op('Sub', x, self.constant(np.float32(steps.offset)))
      steps = steps._replace(offset=0.0)
    if steps.levels < 256:
      # The bytes would go on where the levels end.
      x = self.op('Clip', x, '', self.constant(np.float32(steps.highest)))
    return self.op('QuantizeLinear', x, *self._scale(steps))

  def dequantize(self, codes: str, steps: Steps) -> str:
    """The values of codes."""
    x = self.op('DequantizeLinear', codes, *self._scale(steps))
    if steps.offset:
      x = self.op('Add', x, self.constant(np.float32(steps.offset)))
    return x

  def _scale(self, steps: Steps) -> tuple[str, str]:
    scale, zero_point = np.float32(steps.scale), np.uint8(steps.zero_point)
    return self.constant(scale), self.constant(zero_point)

  def reshape(self, x: str, *shape: int) -> str:
    """The same values in another shape; its first axis is the batch."""
    return self.op('Reshape', x, self.constant(np.array([-1, *shape])))

  def slice(
    self,
    x: str,
    starts: list[int],
    stops: list[int],
    axes: list[int],
    strides: list[int] | None = None,
  ) -> str:
    """A part of x along some axes."""
    places = [starts, stops, axes]
    if strides is not None and set(strides) != {1}:
      places.append(strides)
    arguments = (self.constant(np.array(v, np.int64)) for v in places)
    return self.op('Slice', x, *arguments)

  def concat(self, parts: Sequence[str], axis: int) -> str:
    """Joins tensors along an axis."""
    return self.op('Concat', *parts, axis=axis)

  def split(self, x: str, parts: int, axis: int) -> list[str]:
    """Splits x into this many parts of the same size."""
    if parts == 1:
      return [x]
    return self.op('Split', x, outputs=parts, axis=axis, num_outputs=parts)

  def padded(
    self,
    x: str,
    pads: Mapping[int, tuple[int, int]],
    steps: Steps | None = None,
  ) -> str:
    """Adds zeros along some of four axes; codes if `steps` are given.

    See `Writer.padded`.
    """
    sizes = np.zeros((2, 4), np.int64)
    for axis, ends in pads.items():
      sizes[:, axis] = ends
    zero = np.float32(0) if steps is None else np.uint8(steps.zero_point)
    return self.op(
      'Pad', x, self.constant(sizes.reshape(-1)), self.constant(zero)
    )

  def added(self, parts: Sequence[str]) -> str:
    """The sum of tensors."""
    return self.op('Sum' if len(parts) > 2 else 'Add', *parts)

  def model(
    self, output: str, shape: tuple[int, ...], metadata: Mapping[str, Any]
  ) -> bytes:
    """Finishes the model.

    Args:
      output: the tensor that becomes the output `images`.
      shape: of one image.
      metadata: stored in the file as JSON.

    Returns:
      The file's content, checked by ONNX's own checker.
    """
    onnx = self._onnx
    opset, ir_version = _VERSIONS[self._bits]
    self._nodes.append(onnx.helper.make_node('Identity', [output], ['images']))
    graph = onnx.helper.make_graph(
      self._nodes,
      'generator',
      self._inputs,
      [
        onnx.helper.make_tensor_value_info(
          'images', onnx.TensorProto.FLOAT, ['batch', *shape]
        )
      ],
      list(self._constants.values()),
    )
    model = onnx.helper.make_model(
      graph,
      producer_name='qgan_jax',
      opset_imports=[onnx.helper.make_opsetid('', opset)],
      ir_version=ir_version,
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(model, full_check=True)
    return sealed(model.SerializeToString())
