"""Data sets larger than memory: decoded once, into files on the disk.

The files are NumPy's own (`.npy`), mapped into memory. A batch is indexed as in
an array in memory, in any order, and the operating system keeps as much in
memory as there is room for, once for all processes of a machine. Formats for
examples of any size, such as ArrayRecord, would have to be decoded for each
batch.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import fcntl
import json
import os
from pathlib import Path
import shutil
from typing import Any, BinaryIO

from absl import logging
import numpy as np

from qgan_jax.data.dataset import ImageDataset
from qgan_jax.errors import cache_folder, UserError

_SPOOL = 'decoded'
_WAYS_OUT = (
  'set QGAN_JAX_CACHE to a folder with room, or make image_size smaller'
)
Expected = list[tuple[str, tuple[str, ...]]]


class Files:
  """A folder into which decoded pictures are written, one after another.

  They are written as files, and not stored into a map: there, a full disk would
  be a signal that ends the process, and not an error. Maps are only read.

  Attributes:
    expected: the digest and the name of each picture that is to be decoded.
  """

  def __init__(self, folder: Path, expected: Expected, most: int):
    """Reserves the size of the files; disk space is used only when written.

    Args:
      folder: which exists.
      expected: what is to be decoded.
      most: bytes of a decoded picture.
    """
    self.expected = expected
    self._folder = folder
    self._most = most
    self._spool = (folder / _SPOOL).open('w+b')
    self._spool.truncate(len(expected) * most)
    shape = (len(expected), most)
    self._pixels = np.asarray(
      np.memmap(self._spool, np.uint8, 'r', shape=shape)
    )

  def keep(self, number: int, pixels: np.ndarray) -> np.ndarray:
    """Writes uint8 `[H, W, C]` at a place, and returns it mapped from there."""
    self._spool.seek(number * self._most)
    self._spool.write(pixels.tobytes())
    self._spool.flush()
    return self._pixels[number, : pixels.size].reshape(pixels.shape)

  def stack(
    self, name: str, rows: Iterable[np.ndarray], shape: tuple[int, ...]
  ) -> np.ndarray:
    """Writes uint8 arrays into one file, and returns it as an array.

    Args:
      name: of the array.
      rows: its parts, uint8.
      shape: of all of them together.
    """
    path = self._folder / f'{name}.npy'
    with path.open('wb') as file:
      header = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
      np.lib.format.write_array_header_1_0(file, header)
      for row in rows:
        file.write(row.tobytes())
      _sync(file)
    return _mapped(path)

  def finish(self, dataset: ImageDataset) -> None:
    """Writes the rest of the data set, and deletes files no longer needed."""
    rest: dict[str, Any] = {}
    for field in dataclasses.fields(dataset):
      value = getattr(dataset, field.name)
      if not isinstance(value, np.ndarray):
        rest[field.name] = value
      elif value.dtype != np.uint8:
        with (self._folder / f'{field.name}.npy').open('wb') as file:
          np.save(file, value)
          _sync(file)
    with (self._folder / 'dataset.json').open('wb') as file:
      file.write(json.dumps(rest).encode())
      _sync(file)
    self._spool.close()
    (self._folder / _SPOOL).unlink()


def load_or_make(
  key: str,
  make: Callable[[Files], ImageDataset],
  *,
  expected: Expected,
  most: int,
  decoded: int,
) -> ImageDataset:
  """Loads the data set that was decoded under a key, or decodes it now.

  Processes that need the same data set wait for the first.

  Args:
    key: a digest of everything that the data set depends on, in hexadecimal.
    make: decodes it; its images come from `Files.stack`.
    expected: the pictures' digests and names.
    most: bytes of a decoded picture.
    decoded: bytes of all images of the data set.

  Raises:
    UserError: the disk is too small, or the folder cannot be written.
  """
  kept = cache_folder('keep decoded pictures', 'pictures', 'pictures')
  folder = kept / key
  size = f'{decoded / 2**30:.1f} GiB'
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix('.lock')):
      found = _load(folder)
      if found is not None:
        logging.warning(
          'decoded pictures, up to %s, are read from %s', size, folder
        )
        return found
      _check_disk(folder.parent, decoded + len(expected) * most)
      logging.warning(
        'decoded pictures, up to %s, are too many for memory: they are written '
        'to %s, for this run and later ones',
        size,
        folder,
      )
      # A process that was killed may have left some.
      for old in (part := folder.with_suffix('.part')), folder:
        shutil.rmtree(old, ignore_errors=True)
      part.mkdir()
      try:
        files = Files(part, expected, most)
        files.finish(make(files))
        part.rename(folder)
      except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
      made = _load(folder)
      assert made is not None
      return made
  except OSError as error:
    raise UserError(
      f'decoded pictures, up to {size}, cannot be kept in {str(folder)!r} '
      f'({error.strerror or error}): {_WAYS_OUT}'
    ) from None


def _load(folder: Path) -> ImageDataset | None:
  """What `Files` has written; None where it is not there, or damaged."""
  try:
    rest = json.loads((folder / 'dataset.json').read_bytes())
    values: dict[str, Any] = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in rest.items()
    }
    values |= {path.stem: _mapped(path) for path in folder.glob('*.npy')}
    return ImageDataset(**values)
  except (OSError, ValueError, TypeError, AttributeError):
    return None


def _mapped(path: Path) -> np.ndarray:
  # A plain array over the map: a memmap's every slice is an object of its own
  # class, which is slower.
  return np.asarray(np.load(path, mmap_mode='r'))


def _sync(file: BinaryIO) -> None:
  """So that a folder that has its name is whole, whatever happens."""
  file.flush()
  os.fsync(file.fileno())


def _check_disk(folder: Path, needed: int) -> None:
  free = shutil.disk_usage(folder).free
  if free < needed:
    raise UserError(
      f'pictures that are too many for memory are decoded into '
      f'{str(folder)!r}, which takes up to {needed / 2**30:.1f} GiB while it '
      f'is done, and its disk has {free / 2**30:.1f} GiB: {_WAYS_OUT}'
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
  """Keeps other processes of this machine out, and says where one is inside."""
  with path.open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.warning('waiting for another process to decode these pictures')
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
