"""Reads the record of a `.stablehlo` file without JAX."""

import hashlib
from pathlib import Path
from typing import Any
import zipfile

from qgan_jax.artifacts.described import read_record
from qgan_jax.errors import UserError

VERSION = 1
# The archive's two files: what is said of the program, and the program.
RECORD = 'generator.json'
PROGRAM = 'program'


def read_stablehlo(path: Path) -> tuple[dict[str, Any], bytes]:
  """(the record of a file, its program, which is not parsed).

  Raises:
    UserError: it is something else, cut short or changed.
  """
  try:
    with zipfile.ZipFile(path) as file:
      entries = [file.getinfo(name) for name in (RECORD, PROGRAM)]
      if any(entry.compress_type for entry in entries):
        raise ValueError('it is compressed')
      text, content = map(file.read, entries)
    record = read_record(text)
    if record['version'] != VERSION:
      raise ValueError(f'its version is {record["version"]!r}, not {VERSION}')
    if record['sha256'] != hashlib.sha256(content).hexdigest():
      raise ValueError('its checksum does not match')
    # A shape of what it takes, for those who do not call it with latents.
    record.setdefault('inputs', [])
  # What a zip that is none, or one that is encrypted, makes of its reader.
  except (OSError, zipfile.BadZipFile, LookupError, NotImplementedError,
          RuntimeError, ValueError) as error:  # fmt: skip
    raise UserError(
      f'{path} is not a whole .stablehlo file ({error}): copy or export it '
      'again'
    ) from error
  return record, content
