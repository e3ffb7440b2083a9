"""Reads and checks an ONNX file before any runtime gets it.

Runtimes read far more than is written here: loops, functions, weights in other
files. So the file, a protocol buffer, is first read by this short module, which
allows only the fields and operations that `onnx_builder` writes.
https://protobuf.dev/programming-guides/encoding describes how fields are
encoded, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto what they are.

The last entry of the file's metadata is its seal, the SHA-256 of everything
before.
"""

from collections import defaultdict
import hashlib
from typing import Any, NamedTuple

from qgan_jax.artifacts.described import read_record
from qgan_jax.artifacts.drawer import METADATA_KEY

# Each takes arrays to arrays; none has a graph inside.
OPERATIONS = frozenset((
  'Abs', 'Add', 'And', 'Cast', 'Ceil', 'Clip', 'Concat', 'Conv',
  'ConvTranspose', 'Cos', 'DequantizeLinear', 'Div', 'Equal', 'Erf', 'Exp',
  'Expand', 'Floor', 'Gather', 'Greater', 'GreaterOrEqual',
  'GroupNormalization', 'Identity', 'LeakyRelu', 'Less', 'LessOrEqual', 'Log',
  'MatMul', 'Max', 'MaxPool', 'Min', 'Mul', 'Neg', 'Not', 'OneHot', 'Or',
  'Pad', 'Pow', 'QuantizeLinear', 'Reciprocal', 'ReduceMax', 'ReduceMean',
  'ReduceMin', 'ReduceSum', 'Relu', 'Reshape', 'Resize', 'Shape', 'Sigmoid',
  'Sign', 'Sin', 'Slice', 'Split', 'Sqrt', 'Sub', 'Sum', 'Tanh', 'Transpose',
  'Where',
))  # fmt: skip
# How a value is encoded.
_NUMBER, _BYTES, _FLOAT = 0, 2, 5


class _Field(NamedTuple):
  """A field of a message.

  Attributes:
    name: of it.
    kind: how its values are encoded: the only way in which they are read.
    many: whether it may be there more than once. Of others, runtimes would
      take the last value.
  """

  name: str
  kind: int = _BYTES
  many: bool = False


# The fields of messages, by their numbers in onnx.proto, that are written.
_MODEL = {
  1: _Field('ir_version', _NUMBER),
  2: _Field('producer'),
  7: _Field('graph'),
  8: _Field('opset', many=True),
  14: _Field('entry', many=True),
}
_GRAPH = {
  1: _Field('node', many=True),
  2: _Field('name'),
  5: _Field('constant', many=True),
  11: _Field('input', many=True),
  12: _Field('output', many=True),
}
_NODE = {
  1: _Field('input', many=True),
  2: _Field('output', many=True),
  3: _Field('name'),
  4: _Field('op'),
  5: _Field('attribute', many=True),
}
# No graph (6, 11) and no type of one.
_ATTRIBUTE = {
  1: _Field('name'),
  2: _Field('f', _FLOAT),
  3: _Field('i', _NUMBER),
  4: _Field('s'),
  8: _Field('ints', _NUMBER, many=True),
  20: _Field('type', _NUMBER),
}
# No data that lie in another file (13, 14).
_TENSOR = {
  1: _Field('dims', _NUMBER, many=True),
  2: _Field('type', _NUMBER),
  5: _Field('int32_data', many=True),
  8: _Field('name'),
  9: _Field('raw_data'),
}
_ENTRY = {1: _Field('key'), 2: _Field('value')}
_SEAL_KEY = b'sha256'
_SEAL_SIZE = 64 + 2 + 2 + len(_SEAL_KEY) + 2  # Two fields within one.


def sealed(content: bytes) -> bytes:
  """Adds the seal to an ONNX file."""
  digest = hashlib.sha256(content).hexdigest().encode()
  entry = b'\x0a%c%b\x12%c%b' % (
    len(_SEAL_KEY), _SEAL_KEY, len(digest), digest
  )  # fmt: skip
  return content + b'\x72%c%b' % (len(entry), entry)


def read_onnx(content: bytes) -> dict[str, Any]:
  """Checks a file, and reads its record, which is not yet compared with it.

  Args:
    content: of the file.

  Returns:
    The record, as `read_record` returns it.

  Raises:
    ValueError: it is nothing that `onnx_builder` wrote, or was changed.
  """
  if sealed(content[:-_SEAL_SIZE]) != content:
    raise ValueError(
      'its checksum is missing or does not match: it was changed, cut short or '
      'written by an earlier version'
    )
  model = _read(content, _MODEL)
  entries = [_read(entry, _ENTRY) for entry in model['entry']]
  records = {bytes(e['key'][0]): bytes(e['value'][0]) for e in entries}
  record = read_record(records[METADATA_KEY.encode()])
  graph = _read(model['graph'][0], _GRAPH)
  constants = [_read(tensor, _TENSOR) for tensor in graph['constant']]
  for node in graph['node']:
    fields = _read(node, _NODE)
    operation = bytes(fields['op'][0]).decode()
    if operation not in OPERATIONS:
      raise ValueError(f'{operation!r} is no operation that is exported')
    for attribute in fields['attribute']:
      _read(attribute, _ATTRIBUTE)
    # Only a network that draws from latents says how many classes it has.
    if operation == 'OneHot' and record['num_classes'] is not None:
      _check_classes(bytes(fields['input'][1]), constants, record)
  return record


def _check_classes(
  name: bytes, constants: list[Any], record: dict[str, Any]
) -> None:
  """A runtime draws from labels that the graph does not have, too."""
  for tensor in constants:
    if bytes(tensor['name'][0]) == name:
      depth = int.from_bytes(bytes(tensor['raw_data'][0]), 'little')
      if depth != record['num_classes']:
        raise ValueError(
          f'it says num_classes={record["num_classes"]}, and its graph has '
          f'{depth}'
        )


def _read(data: bytes | memoryview, known: dict[int, _Field]) -> Any:
  """The values of a message's fields, by name: numbers, or parts of `data`."""
  found: defaultdict[str, list[Any]] = defaultdict(list)
  view, at = memoryview(data), 0
  while at < len(view):
    tag, at = _varint(view, at)
    number, kind = tag >> 3, tag & 7
    field = known.get(number)
    if field is None or kind != field.kind:
      raise ValueError(
        f'a field {number} of kind {kind} is none that is exported'
      )
    if found[field.name] and not field.many:
      raise ValueError(f'a field {number} is there twice')
    value: Any
    if kind == _NUMBER:
      value, at = _varint(view, at)
    else:
      size = 4
      if kind == _BYTES:
        size, at = _varint(view, at)
      if size > len(view) - at:
        raise ValueError(f'{size} bytes from {at} of {len(view)}')
      value, at = view[at : at + size], at + size
    found[field.name].append(value)
  return found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
  """(a number of seven bits a byte, where it ends)."""
  value = 0
  for shift in range(0, 70, 7):
    byte = view[at]
    value |= (byte & 127) << shift
    at += 1
    if byte < 128:
      return value, at
  raise ValueError('a number has more than 64 bits')
