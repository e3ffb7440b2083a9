"""The picture files of a folder, or of an archive without unpacking it."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import io
import lzma
import os
from pathlib import Path
import stat
import tarfile
from typing import BinaryIO, NamedTuple
import zipfile
import zlib

from PIL import Image

from qgan_jax.errors import expand_home, UserError

# What an archive may hold in all, and any one file: 64 GiB and 256 MiB.
_MOST_IN_ARCHIVE = 2**36
_MOST_IN_FILE = 2**28
# Formats that a file without a known extension may have. Its first bytes tell.
_BY_CONTENT = ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'AVIF')
_DAMAGE = (
  tarfile.TarError,
  zipfile.BadZipFile,
  EOFError,
  OSError,
  lzma.LZMAError,
  zlib.error,
)

Parts = tuple[str, ...]
Open = Callable[[], BinaryIO]


class PictureFile(NamedTuple):
  """A file that is a picture by its name or its content.

  Attributes:
    parts: its path inside the folder or the archive.
    read: returns its bytes; any thread may call it while the source is open.
  """

  parts: Parts
  read: Callable[[], bytes]


class Source:
  """An open folder or archive; iterating gives its pictures, once.

  Attributes:
    path: of the folder or archive.
    ignored: names of the files seen so far that are no pictures, cannot be
      read, or are outside of it.
  """

  def __init__(self, path: Path, held: contextlib.ExitStack):
    """Opens it; closing `held` closes it again."""
    self.path = path
    self.ignored: list[str] = []
    self._in_order = False
    try:
      if path.is_dir():
        self._files = self._of_folder()
      # First: a .tar that ends with a .zip would be taken for this one.
      elif path.is_file() and tarfile.is_tarfile(path):
        # Where it is compressed, to read out of order is to read from the
        # start again.
        self._in_order = True
        archive_in_order = tarfile.open(path)  # noqa: SIM115
        self._files = self._of_tar(held.enter_context(archive_in_order))
      # By its name too: where its end is missing, nothing else says so.
      elif path.is_file() and (
        zipfile.is_zipfile(path) or path.suffix.lower() == '.zip'
      ):
        archive = held.enter_context(zipfile.ZipFile(path))
        self._files = self._of_zip(archive)
      elif path.is_file():
        raise UserError(
          f'{str(path)!r} is neither a folder of images nor a .zip or .tar '
          'archive of them; put it into a folder, or unpack it, and give that.'
        )
      else:
        where = '' if path.is_absolute() else f' in {os.getcwd()}'
        raise UserError(
          f'There is no image folder {str(path)!r}{where}, and no .zip or .tar '
          'archive of that name.'
        )
    except _DAMAGE as error:
      raise self._damaged(error) from None

  def __iter__(self) -> Iterator[PictureFile]:
    """Yields the pictures, in arbitrary order.

    Raises:
      UserError: the archive is damaged, or holds more than 64 GiB.
    """
    known = _known_extensions()
    for parts, open_file in self._files:
      if any(part.startswith(('.', '__MACOSX')) for part in parts):
        continue
      extension = Path(parts[-1]).suffix.lower()
      try:
        if extension in known or _is_picture(open_file):
          read = _reader(open_file)
          yield PictureFile(parts, _given(read()) if self._in_order else read)
          continue
      except (*_DAMAGE, ValueError, RuntimeError, NotImplementedError):
        pass  # Such as no right to read it, or a password.
      self.ignored.append('/'.join(parts))

  def _of_folder(self) -> Iterator[tuple[Parts, Open]]:
    """Files in all folders below, each folder once.

    Links to folders are followed after everything that lies there itself, so
    that a link decides the class of no picture that has a place of its own.
    """
    seen = set()
    waiting = [self.path]
    for start in waiting:
      for folder, subfolders, names in os.walk(start, onerror=self._unreadable):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
          subfolders.clear()
          continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        paths = [Path(folder, name) for name in subfolders]
        waiting += [path for path in paths if path.is_symlink()]
        for path in (Path(folder, name) for name in sorted(names)):
          parts = path.relative_to(self.path).parts
          # No pipe, which would wait for ever, no device and no dead link.
          if path.is_file():
            yield parts, _opener(path)
          else:
            self.ignored.append('/'.join(parts))

  def _of_zip(self, archive: zipfile.ZipFile) -> Iterator[tuple[Parts, Open]]:
    total = 0
    for info in archive.infolist():
      kind = stat.S_IFMT(info.external_attr >> 16)
      if info.is_dir():
        continue
      # Some programs write Windows' separators.
      parts = self._inside(info.filename.replace('\\', '/'))
      # Archives made on Windows have no kind of file.
      if parts is None or kind not in (0, stat.S_IFREG):
        self.ignored.append(info.filename)
        continue
      total += info.file_size
      self._bound(total)
      yield parts, _member(archive, info)

  def _of_tar(self, archive: tarfile.TarFile) -> Iterator[tuple[Parts, Open]]:
    total = 0
    try:
      for member in archive:
        # Before it is passed over, which decompresses it.
        total += member.size
        self._bound(total)
        if member.isdir():
          continue
        parts = self._inside(member.name)
        if parts is None or not member.isreg():
          self.ignored.append(member.name)
          continue
        yield parts, _of_member(archive, member)
    except _DAMAGE as error:
      raise self._damaged(error) from None

  def _unreadable(self, error: OSError) -> None:
    self.ignored.append(str(error.filename))

  def _inside(self, name: str) -> Parts | None:
    """The parts of a member's name; None for one that leads outside."""
    parts = name.removeprefix('./').split('/')
    if '' in parts or '..' in parts:
      return None
    return tuple(part for part in parts if part != '.') or None

  def _bound(self, total: int) -> None:
    if total > _MOST_IN_ARCHIVE:
      raise UserError(
        f'The archive {str(self.path)!r} unpacks to more than '
        f'{_MOST_IN_ARCHIVE >> 30} GiB; unpack it, and give the folder.'
      )

  def _damaged(self, error: Exception) -> UserError:
    return UserError(
      f'{str(self.path)!r} cannot be read to its end ({error}); copy it again.'
    )


@contextlib.contextmanager
def opened(path: str) -> Iterator[Source]:
  """Opens a folder, a .zip, or a .tar that may be compressed.

  Hidden files and folders are left out. Links, absolute names and `..` in an
  archive are ignored, so it cannot refer to files outside of it.

  Args:
    path: of it; `~` is expanded.

  Raises:
    UserError: it does not exist, or is none of these.
  """
  with contextlib.ExitStack() as held:
    yield Source(Path(expand_home(path)), held)


def check(path: str) -> None:
  """Checks that there is at least one picture.

  Raises:
    UserError: there is none.
  """
  with opened(path) as source:
    if next(iter(source), None) is None:
      raise no_pictures(source)


def no_pictures(source: Source) -> UserError:
  """The error for a source without any picture, once all of it was read."""
  others = ''
  if source.ignored:
    others = (
      f' {len(source.ignored)} other file(s) are there, such as '
      f'{source.ignored[0]!r}: save pictures of other formats as PNG or JPEG.'
    )
  return UserError(
    f'The folder {str(source.path)!r} holds no images (looked in its '
    f'sub-folders too); expected files such as .png, .jpg or .webp.{others}'
  )


def formats() -> tuple[str, ...]:
  """Names of the formats that Pillow opens without other programs.

  For EPS it would start Ghostscript, which runs the program that such a file
  is.
  """
  Image.init()
  return tuple(kind for kind in Image.OPEN if kind != 'EPS')


def _known_extensions() -> set[str]:
  """Of files of these formats."""
  known = formats()
  extensions = Image.registered_extensions()
  return {name for name, kind in extensions.items() if kind in known}


def _is_picture(open_file: Open) -> bool:
  """Whether a file begins as pictures do; Pillow reads the header alone."""
  with open_file() as file:
    start = file.read(16)
    accepts = (
      Image.OPEN[kind][1] for kind in _BY_CONTENT if kind in Image.OPEN
    )
    return any(accept and accept(start) is True for accept in accepts)


def _reader(open_file: Open) -> Callable[[], bytes]:
  def read() -> bytes:
    with open_file() as file:
      content = file.read(_MOST_IN_FILE + 1)
    if len(content) > _MOST_IN_FILE:
      raise ValueError(f'more than {_MOST_IN_FILE >> 20} MiB')
    return content

  return read


# Functions rather than lambdas in the loops, whose variables change.
def _given(content: bytes) -> Callable[[], bytes]:
  return lambda: content


def _opener(path: Path) -> Open:
  return lambda: open(path, 'rb')


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Open:
  return lambda: archive.open(info)  # type: ignore[return-value]


def _of_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Open:
  # Opening it twice must not read it twice: see `_in_order`.
  @functools.cache
  def content() -> bytes:
    file = archive.extractfile(member)
    return file.read(_MOST_IN_FILE + 1) if file else b''

  return lambda: io.BytesIO(content())
