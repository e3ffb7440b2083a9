"""What an ONNX file holds, read before any runtime sees it.

Runtimes read far more than is written here: loops, functions, weights that lie
in other files. So the file, a protocol buffer, is read once by these few lines,
which let in nothing but what `onnx_builder` writes: its fields and operations.
https://protobuf.dev/programming-guides/encoding says how fields are encoded,
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto what they are.

The last entry of the file's metadata is its seal, the SHA-256 of all before.
"""

from collections import defaultdict
import hashlib
from typing import Any

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
# The fields of messages, by their numbers in onnx.proto, that are written.
_MODEL = {'ir_version': 1, 'producer': 2, 'graph': 7, 'opset': 8, 'entry': 14}
_GRAPH = {'node': 1, 'name': 2, 'constant': 5, 'input': 11, 'output': 12}
_NODE = {'input': 1, 'output': 2, 'name': 3, 'op': 4, 'attribute': 5}
# No graph (6, 11) and no type of one.
_ATTRIBUTE = {'name': 1, 'f': 2, 'i': 3, 's': 4, 'ints': 8, 'type': 20}
# No data that lie in another file (13, 14).
_TENSOR = {'dims': 1, 'type': 2, 'int32_data': 5, 'name': 8, 'raw_data': 9}
_ENTRY = {'key': 1, 'value': 2}
_SEAL_KEY = b'sha256'
_SEAL_SIZE = 64 + 2 + 2 + len(_SEAL_KEY) + 2  # Two fields within one.


def sealed(content: bytes) -> bytes:
  """An ONNX file with its seal."""
  digest = hashlib.sha256(content).hexdigest().encode()
  entry = b'\x0a%c%b\x12%c%b' % (
    len(_SEAL_KEY), _SEAL_KEY, len(digest), digest
  )  # fmt: skip
  return content + b'\x72%c%b' % (len(entry), entry)


def read_onnx(content: bytes) -> dict[str, Any]:
  """What a file says of itself; nothing else is believed yet.

  Args:
    content: of the file.

  Returns:
    Its record, of `read_record`.

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
  (data,) = model['graph']
  graph = _read(data, _GRAPH)
  constants = [_read(tensor, _TENSOR) for tensor in graph['constant']]
  for node in graph['node']:
    fields = _read(node, _NODE)
    operation = bytes(fields['op'][0]).decode()
    if operation not in OPERATIONS:
      raise ValueError(f'{operation!r} is no operation that is exported')
    for attribute in fields['attribute']:
      _read(attribute, _ATTRIBUTE)
    if operation == 'OneHot':
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


def _read(data: bytes | memoryview, known: dict[str, int]) -> Any:
  """The values of a message's fields, by name: numbers, or parts of `data`."""
  names = {number: name for name, number in known.items()}
  found: defaultdict[str, list[Any]] = defaultdict(list)
  view, at = memoryview(data), 0
  while at < len(view):
    tag, at = _varint(view, at)
    number, kind = tag >> 3, tag & 7
    if number not in names:
      raise ValueError(f'a field {number} is none that is exported')
    value: Any
    if kind == 0:
      value, at = _varint(view, at)
    else:
      size = 4
      if kind == 2:
        size, at = _varint(view, at)
      elif kind != 5:
        raise ValueError(f'a field of kind {kind} is none that is exported')
      if size > len(view) - at:
        raise ValueError(f'{size} bytes from {at} of {len(view)}')
      value, at = view[at : at + size], at + size
    found[names[number]].append(value)
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
