"""Writes LiteRT's flatbuffers: tensors, constants, operators.

The schema comes with LiteRT's runtime, as Python classes. Its fields are
described in
https://github.com/google-ai-edge/LiteRT/blob/main/tflite/schema/schema.fbs. The
batch is 1, as on a phone, so every size is known.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import json
import math
from typing import Any, NamedTuple

import numpy as np

from qgan_jax import errors
from qgan_jax.artifacts.drawer import METADATA_KEY
from qgan_jax.artifacts.levels import Steps

Array = np.ndarray
IDENTIFIER = b'TFL3'  # Bytes 4 to 7 of a file.
# The first versions of these operators that there are, or that have int8 with a
# scale for each channel; of others the first one does.
_VERSIONS = {
  'BROADCAST_TO': 2,
  'CONV_2D': 3,
  'FULLY_CONNECTED': 12,
  'TRANSPOSE_CONV': 3,
}
_NONE = -1  # The index of an input that is left out.


# Imports a module of that extra, or says how to get it.
require = functools.partial(errors.require, extra='tflite')


class Scales(NamedTuple):
  """The values of a tensor's integers, scale · (integer − zero point).

  Attributes:
    scales: positive; one, or one for each index of the first axis.
    zero_point: of all of them.
    offset: a number added to these values. A file cannot store it: it is
      subtracted before, and added where the numbers are read.
  """

  scales: float | Array
  zero_point: int = 0
  offset: float = 0.0


class Value(NamedTuple):
  """A tensor of the graph.

  Attributes:
    number: its index among the graph's tensors.
    shape: complete, with the batch.
    dtype: of its elements.
    scales: of quantized integers; None for plain numbers.
  """

  number: int
  shape: tuple[int, ...]
  dtype: np.dtype
  scales: Scales | None = None


class Builder:
  """Builds a LiteRT graph."""

  def __init__(self) -> None:
    self._schema = require('ai_edge_litert.schema_py_generated')
    self._graph = self._schema.SubGraphT()
    self._graph.tensors, self._graph.operators = [], []
    self._graph.inputs, self._graph.outputs = [], []
    self._buffers = [self._schema.BufferT()]  # The first is always empty.
    self._kinds: list[str] = []
    self._constants: dict[Any, Value] = {}

  def input(self, name: str, shape: Sequence[int], dtype: Any) -> Value:
    """Declares an input."""
    value = self._tensor(shape, dtype)
    self._graph.tensors[value.number].name = name
    self._graph.inputs.append(value.number)
    return value

  def constant(self, value: Any, scales: Scales | None = None) -> Value:
    """A tensor of fixed values; equal ones are stored once."""
    array = np.ascontiguousarray(value)
    array = array.reshape(np.shape(value))  # Of a number, no axis is made.
    content = array.tobytes()
    own = scales and (np.asarray(scales.scales).tobytes(), scales.zero_point)
    key = content, array.dtype, array.shape, own
    if key not in self._constants:
      buffer = self._schema.BufferT()
      buffer.data = np.frombuffer(content, np.uint8)
      self._buffers.append(buffer)
      made = self._tensor(array.shape, array.dtype, scales)
      self._graph.tensors[made.number].buffer = len(self._buffers) - 1
      self._constants[key] = made
    return self._constants[key]

  def op(
    self,
    kind: str,
    inputs: Sequence[Value | None],
    shape: Sequence[int],
    dtype: Any = np.float32,
    scales: Scales | None = None,
    *,
    options: str = '',
    **fields: Any,
  ) -> Value:
    """Adds an operator.

    Args:
      kind: its name in the schema, 'CONV_2D'.
      inputs: its inputs; None for one that is left out.
      shape: of its output.
      dtype: of its output.
      scales: of its output.
      options: the name of the schema's table of its options, 'Conv2D'.
      **fields: of that table.

    Returns:
      Its output.
    """
    output = self._tensor(shape, dtype, scales)
    if kind not in self._kinds:
      self._kinds.append(kind)
    operator = self._schema.OperatorT()
    operator.opcodeIndex = self._kinds.index(kind)
    operator.inputs = [_NONE if x is None else x.number for x in inputs]
    operator.outputs = [output.number]
    if options:
      table = getattr(self._schema, f'{options}OptionsT')()
      for name, field in fields.items():
        setattr(table, name, field)
      operator.builtinOptions = table
      operator.builtinOptionsType = getattr(
        self._schema.BuiltinOptions, f'{options}Options'
      )
    self._graph.operators.append(operator)
    return output

  def reshape(self, x: Value, *shape: int) -> Value:
    """The same elements in another shape, apart from the first axis."""
    return self.shaped(x, (x.shape[0], *shape))

  def shaped(self, x: Value, shape: Sequence[int]) -> Value:
    """The same elements in another shape; −1 stands for the remaining size."""
    rest = -math.prod(shape)
    size = math.prod(x.shape)
    shape = tuple(size // rest if n == -1 else n for n in shape)
    if shape == x.shape:
      return x
    sizes = self.constant(np.array(shape, np.int32))
    return self.op('RESHAPE', [x, sizes], shape, x.dtype, x.scales)

  def slice(
    self,
    x: Value,
    starts: Sequence[int],
    stops: Sequence[int],
    axes: Sequence[int],
    strides: Sequence[int] | None = None,
  ) -> Value:
    """A part of x along some axes."""
    places = np.array([[0, n, 1] for n in x.shape], np.int32)
    for i, axis in enumerate(axes):
      places[axis] = starts[i], stops[i], strides[i] if strides else 1
    shape = [len(range(*place)) for place in places.tolist()]
    if tuple(shape) == x.shape:
      return x
    return self.op(
      'STRIDED_SLICE', [x, *map(self.constant, places.T)], shape, x.dtype,
      x.scales, options='StridedSlice',
    )  # fmt: skip

  def concat(self, parts: Sequence[Value], axis: int) -> Value:
    """Joins tensors along an axis."""
    first = parts[0]
    shape = list(first.shape)
    shape[axis] = sum(x.shape[axis] for x in parts)
    return self.op(
      'CONCATENATION', parts, shape, first.dtype, first.scales,
      options='Concatenation', axis=axis,
    )  # fmt: skip

  def split(self, x: Value, parts: int, axis: int) -> list[Value]:
    """Splits x into this many parts of the same size."""
    size = x.shape[axis] // parts
    return [
      self.slice(x, [i * size], [(i + 1) * size], [axis]) for i in range(parts)
    ]

  def padded(
    self,
    x: Value,
    pads: Mapping[int, tuple[int, int]],
    steps: Steps | None = None,
    *,
    fill: float = 0.0,
  ) -> Value:
    """Adds zeros, or another number, along some axes; see `Writer`."""
    sizes = np.zeros((len(x.shape), 2), np.int32)
    for axis, (low, high) in pads.items():
      sizes[axis] = max(low, 0), max(high, 0)
      x = self.slice(x, [max(-low, 0)], [x.shape[axis] + min(high, 0)], [axis])
    if not sizes.any():
      return x
    shape = x.shape + sizes.sum(1)
    if x.scales is not None:
      fill = x.scales.zero_point
    filled = self.constant(np.array(fill, x.dtype), x.scales)
    inputs = [x, self.constant(sizes), filled]
    return self.op('PADV2', inputs, shape, x.dtype, x.scales)

  def added(self, parts: Sequence[Value]) -> Value:
    """The sum of tensors of numbers, all of one shape."""
    total = parts[0]
    for part in parts[1:]:
      total = self.op('ADD', [total, part], total.shape, options='Add')
    return total

  def _tensor(
    self, shape: Sequence[int], dtype: Any, scales: Scales | None = None
  ) -> Value:
    tensor = self._schema.TensorT()
    index, dtype = len(self._graph.tensors), np.dtype(dtype)
    tensor.name = f't{index}'
    tensor.shape = [int(n) for n in shape]
    tensor.hasRank = True
    tensor.type = getattr(self._schema.TensorType, dtype.name.upper())
    if scales is not None:
      tensor.quantization = self._schema.QuantizationParametersT()
      each = np.atleast_1d(np.asarray(scales.scales, np.float32))
      tensor.quantization.scale = each
      zeros = np.full(each.shape, scales.zero_point, np.int64)
      tensor.quantization.zeroPoint = zeros
    self._graph.tensors.append(tensor)
    return Value(index, tuple(tensor.shape), dtype, scales)

  def model(self, output: Value, metadata: Mapping[str, Any]) -> bytes:
    """Finishes the file.

    Args:
      output: the tensor that becomes the output `images`.
      metadata: stored in the file as JSON.

    Returns:
      The file's content, with its seal.
    """
    schema, model = self._schema, self._schema.ModelT()
    self._graph.tensors[output.number].name = 'images'
    self._graph.outputs = [output.number]
    self._graph.name = 'generator'
    model.version = 3
    model.description = 'qgan_jax'
    model.subgraphs = [self._graph]
    model.operatorCodes = []
    for kind in self._kinds:
      code = schema.OperatorCodeT()
      code.builtinCode = getattr(schema.BuiltinOperator, kind)
      # Where readers of the first files look for it, in one byte.
      code.deprecatedBuiltinCode = min(code.builtinCode, 127)
      code.version = _VERSIONS.get(kind, 1)
      model.operatorCodes.append(code)
    said = schema.BufferT()
    said.data = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA_KEY, len(self._buffers)
    model.metadata, model.buffers = [entry], [*self._buffers, said]
    writer = require('flatbuffers').Builder(1024)
    writer.Finish(model.Pack(writer), IDENTIFIER)
    return sealed(bytes(writer.Output()))


def sealed(content: bytes) -> bytes:
  """Appends a file's SHA-256, which runtimes ignore."""
  return content + hashlib.sha256(content).digest()
