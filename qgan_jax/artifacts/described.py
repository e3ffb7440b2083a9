"""The JSON record in ONNX, LiteRT and StableHLO files, and its checks.

A file may come from a stranger. So everything in its record is checked here,
once: types, sizes, and that it agrees with the file's program.
"""

from collections.abc import Mapping, Sequence
import json
from typing import Any, NamedTuple

from qgan_jax.artifacts.container import to_json
from qgan_jax.records import parse
from qgan_jax.records.schemas import (
  anything,
  count,
  list_of,
  mapping,
  maybe,
  table,
  text,
)

# The most that is read from a file as a length, a side or any other size.
MAX_SIZE = 2**20
_MAX_DESCRIPTION = 1000  # Characters.


class Signature(NamedTuple):
  """Inputs and output of a program, without the axis of the batch.

  Attributes:
    inputs: (shape of one example, dtype) of each.
    output: shape of one example, float32.
  """

  inputs: tuple[tuple[tuple[int, ...], str], ...]
  output: tuple[int, ...]


def _size(value: Any, where: str) -> None:
  count(value, where)
  if value > MAX_SIZE:
    raise ValueError(f'{where} is {value}, and at most {MAX_SIZE} are read')


def _description(value: Any, where: str) -> None:
  """A line for the terminal, which no control character may change."""
  text(value, where)
  if len(value) > _MAX_DESCRIPTION or not value.isprintable():
    raise ValueError(f'{where} is no line of text')


def _inputs(value: Any, where: str) -> None:
  list_of(list_of(anything))(value, where)
  for i, entry in enumerate(value):
    if len(entry) != 2:
      raise ValueError(f'{where}[{i}] is no shape and dtype')
    list_of(_size)(entry[0], f'{where}[{i}][0]')
    text(entry[1], f'{where}[{i}][1]')


_SCHEMA = table(
  {
    'latent_dim': maybe(_size),
    'num_classes': maybe(_size),
    'description': _description,
  },
  {
    'version': count,
    'sha256': text,
    'inputs': _inputs,
    'image_shape': list_of(_size),
    'metadata': mapping(anything),
  },
)


def check_metadata(metadata: Mapping[str, Any]) -> None:
  """Checks metadata as those of a file that is read.

  Raises:
    ValueError: no file that holds them can be read.
  """
  mapping(anything)(json.loads(to_json(metadata)), 'metadata')


def read_record(data: bytes) -> dict[str, Any]:
  """Reads and checks the record of a file.

  Raises:
    ValueError: it is nothing that an exporter wrote.
  """
  return parse(data, _SCHEMA)


def check_signature(
  record: dict[str, Any], found: Signature, label: str
) -> None:
  """Compares a file's record with the inputs and output of its program.

  Args:
    record: as `read_record` returns it.
    found: of the program itself.
    label: dtype of a label in files of this format.

  Raises:
    ValueError: they differ.
  """
  latent_dim, classes = record['latent_dim'], record['num_classes']
  said = f'latent_dim={latent_dim} and num_classes={classes}'
  inputs: list[tuple[tuple[int, ...], str]] = [((latent_dim,), 'float32')]
  if classes:
    inputs.append(((), label))
  if latent_dim is None:
    inputs = [(tuple(shape), dtype) for shape, dtype in record['inputs']]
    said = _shown(inputs)
  if found.inputs != tuple(inputs):
    raise ValueError(
      f'it says {said}, and its program takes {_shown(found.inputs)}'
    )
  shape = tuple(record.get('image_shape', found.output))
  if found.output != shape:
    raise ValueError(
      f'it says images of {list(shape)}, and its program gives '
      f'{list(found.output)}'
    )


def _shown(inputs: Sequence[tuple[tuple[int, ...], str]]) -> str:
  return ' and '.join(f'{dtype}{list(shape)}' for shape, dtype in inputs)
