"""Reads all pictures of a folder or an archive, in threads."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import functools
import hashlib
import os
from typing import Any, NamedTuple, TypeVar

from absl import logging
import numpy as np
import tqdm

from qgan_jax.data import decoding, picture_files
from qgan_jax.data.mapped import Files
from qgan_jax.data.picture_files import PictureFile
from qgan_jax.errors import UserError

T = TypeVar('T')
R = TypeVar('R')

_NAMES_IN_WARNING = 5
# At most so many has pixel art.
_FEW_COLOURS = 64
# Files that are read ahead of the one that is waited for.
_AHEAD = 64


class Picture(NamedTuple):
  """A file that has been read.

  Attributes:
    parts: its path inside the folder or archive.
    digest: of its bytes, hexadecimal; '' if they cannot be read.
    pixels: uint8 `[H, W, C]`; None if it is broken.
    fault: what is wrong with it in that case.
    brightest: its largest value if it has more than 8 bits, else 0.
    is_flat: whether it has few colours; None if it has the right size.
    is_first: whether it is the first of several frames or pages.
  """

  parts: tuple[str, ...]
  digest: str = ''
  pixels: np.ndarray | None = None
  fault: str = ''
  brightest: int = 0
  is_flat: bool | None = None
  is_first: bool = False


def read(
  path: str, to_array: Callable[..., np.ndarray]
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
  """Reads all pictures of a folder or an archive, one after another.

  Args:
    path: The folder, .zip or .tar; `~` is expanded.
    to_array: Makes an array of an upright picture.

  Yields:
    (its path inside, the result of `to_array`). A warning names pictures that
    cannot be read.

  Raises:
    UserError: There is no such path, or no picture in it.
  """
  count = 0
  with picture_files.opened(path) as source:
    for found in _in_threads(functools.partial(_read, to_array), source):
      if found.pixels is None:
        name = '/'.join(found.parts)
        logging.warning('%s cannot be read: %s', name, found.fault)
      else:
        count += 1
        yield found.parts, found.pixels
    if not count:
      raise picture_files.no_pictures(source)


def count(path: str) -> int:
  """Number of files that seem to be pictures."""
  with picture_files.opened(path) as source:
    return sum(1 for _ in source)


def digests(path: str) -> list[tuple[str, tuple[str, ...]]]:
  """Digest and path of every picture, in order."""
  with picture_files.opened(path) as source:
    return sorted(_shown(_digest_of, source, 'comparing images'))


def readable(
  path: str,
  to_array: Callable[..., np.ndarray],
  files: Files | None = None,
  *,
  warn: bool = True,
) -> list[Picture]:
  """The pictures that can be read; a warning counts everything else.

  Args:
    path: of the folder or archive.
    to_array: makes an array of a picture.
    files: stores the arrays; None for memory.
    warn: False if the same pictures were read before, and warned of.

  Returns:
    The pictures, in an order that depends on their content alone.

  Raises:
    UserError: there is no such path, or fewer than two can be read.
  """
  with picture_files.opened(path) as source:
    found = []
    read_one = functools.partial(_read, to_array)
    for number, picture in enumerate(
      _shown(read_one, source, 'reading images')
    ):
      if files is not None and number < len(files.expected):
        picture = _kept(picture, number, files)
      found.append(picture)
  # Names decide between copies, which may be of several classes.
  found.sort(key=lambda picture: (picture.digest, picture.parts))
  if files and files.expected != [(p.digest, p.parts) for p in found]:
    raise UserError(
      f'the pictures in {path!r} change while they are read; start again when '
      'all of them are there'
    )
  where = str(source.path)
  if not found:
    raise picture_files.no_pictures(source)
  if source.ignored and warn:
    logging.warning(
      '%d file(s) in %r are no pictures of a format that can be read (PNG, '
      'JPEG, WebP…), or not inside, and are left out: %s',
      len(source.ignored),
      where,
      _some(source.ignored),
    )
  faults = [f'{"/".join(p.parts)} ({p.fault})' for p in found if p.fault]
  good = [picture for picture in found if picture.pixels is not None]
  if faults:
    message = (
      f'{len(faults)} of {len(found)} image(s) in {where!r} cannot be read: '
      f'{_some(faults)}'
    )
    if len(good) < 2:
      raise UserError(f'{message}. At least two readable ones are needed.')
    if warn:
      logging.warning('%s. They are left out.', message)
  if len(good) < 2:
    raise UserError(
      f'The folder {where!r} holds one image; at least two are needed, one to '
      'train on and one to hold out.'
    )
  firsts = ['/'.join(p.parts) for p in good if p.is_first]
  if firsts and warn:
    logging.warning(
      '%d picture(s) in %r have several frames or pages, of which the first '
      'is read (save others as pictures of their own): %s',
      len(firsts),
      where,
      _some(firsts),
    )
  return good


def options_of(
  path: str,
  pictures: list[Picture],
  *,
  channels: int | None,
  fit: str,
  pixel_art: bool | None,
  folders: Sequence[str] = (),
) -> dict[str, Any]:
  """Arguments of `images.to_array` that pictures show together, each said.

  Args:
    path: of the folder or archive, for warnings.
    pictures: what was read without these arguments.
    channels: of all images; None for the most that an image needs.
    fit: how they are fitted.
    pixel_art: whether they are pixel art; None decides by their colours.
    folders: names of folders whose pictures all have to seem pixel art, each by
      a majority; by default the pictures are counted together.
  """
  options: dict[str, Any] = {}
  brightest = max(picture.brightest for picture in pictures)
  for bits in (12, 8):
    if 0 < brightest < 2**bits:
      options['white'] = 2**bits - 1
  if 'white' in options:
    logging.warning(
      'The images of 16 bits in %r have no value above %d, which is taken for '
      'white',
      path,
      options['white'],
    )
  groups = [[p for p in pictures if name in p.parts[:-1]] for name in folders]
  flat = [
    [p.is_flat for p in group if p.is_flat is not None]
    for group in groups or [pictures]
  ]
  seem = [2 * sum(group) >= len(group) for group in flat]
  if pixel_art is None and any(flat) and all(seem):
    options['pixel_art'] = True
    logging.warning(
      'Images in %r have few colours: as pixel art, they are scaled by whole '
      'numbers, where these fit, and not smoothed (pixel_art=false for others)',
      path,
    )
  may_pad = fit == 'pad' or pixel_art or 'pixel_art' in options
  found = {p.pixels.shape[-1] for p in pictures if p.pixels is not None}
  if channels is None and may_pad and 4 in found and len(found) > 1:
    # Else the border around opaque ones would be opaque.
    options['channels'] = 4
  return options


def _digest_of(file: PictureFile) -> tuple[str, tuple[str, ...]]:
  try:
    return hashlib.sha256(file.read()).hexdigest(), file.parts
  except Exception:  # noqa: BLE001
    return '', file.parts


def _read(to_array: Callable[..., np.ndarray], file: PictureFile) -> Picture:
  digest = ''
  try:
    data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    with decoding.upright(data) as upright:
      pixels = to_array(upright)
      is_deep = upright.mode.startswith('I')
      brightest = int(np.asarray(upright).max()) if is_deep else 0
      is_flat = None
      if upright.size != pixels.shape[1::-1]:
        # Pillow counts no colours of the other modes with 16 bits.
        counted = upright.convert('I') if is_deep else upright
        is_flat = counted.getcolors(_FEW_COLOURS) is not None
      is_first = upright.info[decoding.SEVERAL]
  # Pillow raises many types for broken files; one must not stop the loading.
  except Exception as error:  # noqa: BLE001
    return Picture(file.parts, digest, fault=str(error))
  return Picture(file.parts, digest, pixels, '', brightest, is_flat, is_first)


def _kept(picture: Picture, number: int, files: Files) -> Picture:
  if picture.pixels is None:
    return picture
  return picture._replace(pixels=files.keep(number, picture.pixels))


def _some(names: list[str]) -> str:
  """The first few of many names."""
  more = ', ...' if len(names) > _NAMES_IN_WARNING else ''
  return '; '.join(names[:_NAMES_IN_WARNING]) + more


def _shown(
  function: Callable[[T], R], items: Iterable[T], what: str
) -> Iterator[R]:
  """As `_in_threads`, with a bar on a terminal."""
  return tqdm.tqdm(
    _in_threads(function, items),
    desc=what,
    unit='image',
    disable=None,
    leave=False,
  )


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
  """`map` in threads that takes few items before their results are taken."""
  waiting: collections.deque[futures.Future[R]] = collections.deque()
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) > _AHEAD:
        yield waiting.popleft().result()
    for future in waiting:
      yield future.result()
