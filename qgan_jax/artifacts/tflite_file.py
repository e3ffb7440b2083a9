"""Reads and checks a LiteRT file before the runtime gets it.

The record of the file and its list of operators are checked here; LiteRT checks
the rest. The last 32 bytes are the file's seal, the SHA-256 of everything
before.
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
  """Checks a file, and reads its record, which is not yet compared with it.

  Args:
    content: of the file.

  Returns:
    The record, as `read_record` returns it.

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
  """Raises a ValueError for operators that are not exported.

  Raises:
    ValueError: it has such an operator, or more than one graph.
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
