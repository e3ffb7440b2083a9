"""What a LiteRT file holds, read before the runtime sees it.

Flatbuffers are read where they lie. What is looked at here is what the file
says of itself and which operators it may run; LiteRT checks the rest. The last
32 bytes are its seal, the SHA-256 of all before.
"""

from typing import Any

from qgan_jax.artifacts.described import read_record
from qgan_jax.artifacts.drawer import METADATA_KEY
from qgan_jax.artifacts.tflite_builder import require, sealed

# Each takes arrays to arrays; none has a graph inside.
OPERATORS = frozenset((
  'ABS', 'ADD', 'AVERAGE_POOL_2D', 'BATCH_MATMUL', 'BROADCAST_TO', 'CAST',
  'CEIL', 'CONCATENATION', 'CONV_2D', 'COS', 'DEQUANTIZE', 'DIV', 'EQUAL',
  'EXP', 'FLOOR', 'FULLY_CONNECTED', 'GATHER', 'GREATER', 'GREATER_EQUAL',
  'LEAKY_RELU', 'LESS', 'LESS_EQUAL', 'LOG', 'LOGICAL_AND', 'LOGICAL_NOT',
  'LOGICAL_OR', 'LOGISTIC', 'MAXIMUM', 'MAX_POOL_2D', 'MEAN', 'MINIMUM', 'MUL',
  'NEG', 'NOT_EQUAL', 'ONE_HOT', 'PADV2', 'POW', 'QUANTIZE', 'REDUCE_MAX',
  'REDUCE_MIN', 'RELU', 'RESHAPE', 'RESIZE_NEAREST_NEIGHBOR', 'REVERSE_V2',
  'RSQRT', 'SELECT_V2', 'SIGN', 'SIN', 'SQRT', 'SQUARE', 'STRIDED_SLICE',
  'SUB', 'SUM', 'TANH', 'TRANSPOSE', 'TRANSPOSE_CONV',
))  # fmt: skip


def read_tflite(content: bytes) -> dict[str, Any]:
  """What a file says of itself; nothing else is believed yet.

  Args:
    content: of the file.

  Returns:
    Its record, of `read_record`.

  Raises:
    UserError: LiteRT, which has the schema, is not installed.
    ValueError: it is nothing that `tflite_builder` wrote, or was changed.
  """
  model = _opened(content)
  for i in range(model.MetadataLength()):
    entry = model.Metadata(i)
    if entry.Name() == METADATA_KEY.encode():
      return read_record(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
  raise ValueError('it does not say what it is')


def check_operators(content: bytes) -> None:
  """Refuses a file with operators that are not exported.

  Raises:
    ValueError: it has one, or more graphs than one.
  """
  model = _opened(content)
  schema = require('ai_edge_litert.schema_py_generated')
  numbers = {getattr(schema.BuiltinOperator, name) for name in OPERATORS}
  if model.SubgraphsLength() != 1 or model.OperatorCodesLength() > len(numbers):
    raise ValueError('it has more than one graph of few operators')
  for i in range(model.OperatorCodesLength()):
    code = model.OperatorCodes(i)
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number not in numbers:
      raise ValueError(f'operator {number} is none that is exported')


def _opened(content: bytes) -> Any:
  seal = len(sealed(b''))
  if sealed(content[:-seal]) != content:
    raise ValueError(
      'its checksum is missing or does not match: it was changed or cut short'
    )
  return require('ai_edge_litert.schema_py_generated').Model.GetRootAs(
    content, 0
  )
