"""Writes files completely or not at all."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from qgan_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
  """Opens a new file that replaces `path` once it is complete.

  Args:
    path: of the file. An existing one is kept until then, and for good if
      writing fails.

  Yields:
    A binary file to write to.

  Raises:
    UserError: the folder is missing, not writable or full.
  """
  path = Path(path)
  # In the same folder: a rename within one file system is atomic.
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    with open(temporary, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(
      f'cannot write {path}: {error.strerror or error}; choose a folder that '
      'exists, can be written and has room'
    ) from error
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
