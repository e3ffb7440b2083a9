"""Reads and writes JSON files, each as a whole or not at all."""

import json
import math
import os
from pathlib import Path
import stat
from typing import Any, NoReturn

from qgan_jax.errors import UserError
from qgan_jax.records.schemas import count, number, Schema, table, text

# What `metrics.jsonl` writes where JSON has no number.
_NUMBERS = {'NaN': math.nan, 'Infinity': math.inf, '-Infinity': -math.inf}
_ROW = table({'step': count}, {'dataset': text})


class DamagedFile(UserError):
  """A file is not what was written; the message names it."""


def read(path: Path, schema: Schema) -> Any:
  """The value in a JSON file; None where there is no such file.

  Raises:
    DamagedFile: it is there and cannot be read, or is not as the schema says.
  """
  data = _bytes(path)
  if data is None:
    return None
  try:
    return parse(data, schema)
  except ValueError as error:
    raise DamagedFile(f'{path} is damaged: {error}') from None


def parse(data: bytes, schema: Schema) -> Any:
  """The value in the JSON of a part of a file.

  Raises:
    ValueError: it is no JSON, or is not as the schema says.
  """
  try:
    value = _parse(data)
    schema(value, '')
  except (ValueError, RecursionError) as error:
    raise ValueError(_why(error)) from None
  return value


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], str]:
  """The rows of a `metrics.jsonl`, and what is wrong with the others.

  A last line without its end is left out: a killed process, or one that is
  writing, leaves such.

  Returns:
    (rows of `metrics_row`, in order; a sentence that names the file, or '').
  """
  try:
    data = _bytes(path) or b''
  except DamagedFile as error:
    return [], str(error)
  rows, wrong = [], []
  for i, line in enumerate(data.split(b'\n')[:-1], 1):
    try:
      rows.append(metrics_row(line))
    except ValueError as error:
      wrong.append(f'{path} is damaged: line {i}: {error}')
  if len(wrong) > 1:
    wrong[0] += f'; {len(wrong) - 1} more lines'
  return rows, wrong[0] if wrong else ''


def metrics_row(line: bytes) -> dict[str, Any]:
  """A line of `metrics.jsonl`: its step, the data set, and floats by name.

  Raises:
    ValueError: it is none.
  """
  try:
    row = _parse(line)
    _ROW(row, '')
    for name, value in row.items():
      if name not in ('step', 'dataset'):
        if isinstance(value, str) and value in _NUMBERS:
          row[name] = _NUMBERS[value]
          continue
        number(value, name)
        row[name] = float(value)
  except (ValueError, RecursionError) as error:
    raise ValueError(_why(error)) from None
  return row


def write_json(path: Path, value: Any) -> None:
  """Writes a file that is there whole or not at all.

  Raises:
    UserError: it cannot be written.
  """
  partial = path.with_name(f'{path.name}.partial')
  try:
    partial.write_text(json.dumps(value, indent=2) + '\n')
    os.replace(partial, path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror}; make room, and the same '
      'command goes on'
    ) from None


def _bytes(path: Path) -> bytes | None:
  """The content of a file; None where there is none."""
  try:
    # Opening a pipe would wait for one who writes.
    if not stat.S_ISREG(path.stat().st_mode):
      raise DamagedFile(f'{path} is damaged: it is no file')
    return path.read_bytes()
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise DamagedFile(f'{path} cannot be read: {error.strerror}') from None


def _parse(data: bytes) -> Any:
  return json.loads(data.decode(), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
  raise ValueError(f'{name} is no JSON')


def _why(error: Exception) -> str:
  if isinstance(error, RecursionError):
    return 'it is nested too deep'
  if isinstance(error, UnicodeDecodeError):
    return 'it is no UTF-8 text'
  return str(error)
