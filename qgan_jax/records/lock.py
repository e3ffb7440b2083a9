"""One writer for a folder of a run or a sweep: a lock of the process.

`flock` locks an open file, on a shared file system too. The system drops the
lock when the process ends, however it ends; the file itself stays and says
nothing.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
from pathlib import Path

from qgan_jax.errors import UserError

LOCK = 'run.lock'
# An environment variable. A launcher locks a trial's folder and hands the open
# lock file on to the command; the variable holds that file's descriptor.
LOCK_VARIABLE = 'QGAN_JAX_LOCK_FD'


@contextlib.contextmanager
def alone(
  folder: Path,
  *,
  lock: str = LOCK,
  occupied: str = (
    'another process is at work in {}; wait for its end, or give another folder'
  ),
) -> Iterator[None]:
  """Keeps other processes from writing into a folder, which it makes.

  Args:
    folder: of a run, or of a sweep.
    lock: name of the file in it that is locked.
    occupied: what is said where another process has the lock; `{}` stands for
      the folder.

  Raises:
    UserError: another process is at work there, or it cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / lock, os.O_RDWR | os.O_CREAT, 0o644)
  except OSError as error:
    raise UserError(
      f'cannot make the folder {folder}: {error.strerror}; give another one'
    ) from None
  try:
    if not _inherited(fd) and not try_lock(fd):
      raise UserError(occupied.format(folder))
    yield
  finally:
    os.close(fd)


def try_lock(fd: int) -> bool:
  """Locks an open file; False where another process has it."""
  try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
      return True  # A file system without locks.
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
      return False
    raise
  return True


def _inherited(fd: int) -> bool:
  """Whether the launcher that started this process has locked this file."""
  try:
    number = int(os.environ.get(LOCK_VARIABLE, ''))
    same = os.path.samestat(os.fstat(number), os.fstat(fd))
  except (ValueError, OSError, OverflowError):
    return False
  # A descriptor that this process has opened itself is not locked yet.
  return same and try_lock(number)
