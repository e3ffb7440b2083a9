"""A user's own pictures, in a folder or in an archive."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import hashlib
import io
import os
from typing import TypeVar

from absl import logging
import numpy as np
from PIL import Image, ImageOps
import tqdm

from qgan_jax.data import images, picture_files
from qgan_jax.data.dataset import ImageDataset, split_off_test
from qgan_jax.data.layout import Layout, layout_of
from qgan_jax.data.picture_files import PictureFile
from qgan_jax.errors import UserError

T = TypeVar('T')
R = TypeVar('R')

_NAMES_IN_WARNING = 5
# Files that are read ahead of the one that is waited for.
_AHEAD = 64


def load(
  path: str, *, image_size: int, channels: int | None = None
) -> ImageDataset:
  """Loads every picture in a folder or an archive, whatever it is like.

  Pictures are turned as their EXIF data says, then treated by
  `images.to_array`. Their folders say what `layout.layout_of` reads from them.
  Where that is no split, a tenth, at most 10,000, is held out; which, depends
  on the number of pictures alone.

  Args:
    path: The folder, .zip or .tar; `~` is expanded, hidden files and folders
      are skipped.
    image_size: Height and width of the result, in pixels.
    channels: 1 or 3; None means 1 if all images are grey, else 3.

  Returns:
    The data set, named `'folder:<last part of the path>-<digest>'`: the digest
    is of the images' files, wherever they lie.

  Raises:
    UserError: There is no such path, or fewer than two images can be read.
  """

  def read(
    file: PictureFile,
  ) -> tuple[tuple[str, ...], np.ndarray | str, bytes]:
    """The path, the pixels or what is wrong, and a digest of both."""
    name = '/'.join(file.parts)
    digest = hashlib.sha256(os.fsencode(name))
    try:
      data = file.read()
      digest.update(data)
      with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        pixels = images.to_array(
          upright, image_size=image_size, channels=channels
        )
    # Pillow raises many types for broken files; one must not stop the loading.
    except Exception as error:  # noqa: BLE001
      return file.parts, f'{name} ({error})', digest.digest()
    return file.parts, pixels, digest.digest()

  with picture_files.opened(path) as source:
    shown = tqdm.tqdm(
      _in_threads(read, source),
      desc='reading images',
      unit='image',
      disable=None,
      leave=False,
    )
    found = sorted(shown, key=lambda file: file[0])
  if not found:
    raise picture_files.no_pictures(source)
  if source.ignored:
    logging.warning(
      '%d file(s) in %r are no pictures, or not inside, and are left out: %s',
      len(source.ignored),
      str(source.path),
      _some(source.ignored),
    )
  failures = [result for _, result, _ in found if isinstance(result, str)]
  if failures:
    message = (
      f'{len(failures)} of {len(found)} image(s) in {str(source.path)!r} '
      f'cannot be read: {_some(failures)}'
    )
    if len(found) - len(failures) < 2:
      raise UserError(f'{message}. At least two readable ones are needed.')
    logging.warning('%s. They are left out.', message)
  good = [
    (parts, pixels) for parts, pixels, _ in found if not isinstance(pixels, str)
  ]
  if len(good) < 2:
    raise UserError(
      f'The folder {str(source.path)!r} holds one image; at least two are '
      'needed, one to train on and one to hold out.'
    )
  depth = max(pixels.shape[-1] for _, pixels in good)
  content = hashlib.sha256(b''.join(digest for _, _, digest in found))
  return _split(
    f'folder:{source.path.resolve().name}-{content.hexdigest()[:8]}',
    np.stack([images.with_channels(pixels, depth) for _, pixels in good]),
    layout_of([parts for parts, _ in good]),
  )


def _split(name: str, pixels: np.ndarray, layout: Layout) -> ImageDataset:
  """The data set, split as its folders say."""
  labels, num_classes = layout.labels, len(layout.class_names)
  if layout.splits is None:
    return split_off_test(
      name=name, images=pixels, labels=labels, num_classes=num_classes
    )
  splits = np.array(layout.splits)
  unused = np.count_nonzero(splits == 'unused')
  if unused:
    logging.warning(
      '%d image(s) for validation are left out, as there are others for tests',
      unused,
    )
  train, test = splits == 'train', splits == 'test'
  return ImageDataset(
    name=name,
    train_images=pixels[train],
    train_labels=None if labels is None else labels[train],
    test_images=pixels[test],
    test_labels=None if labels is None else labels[test],
    num_classes=num_classes,
  )


def _some(names: list[str]) -> str:
  """The first few of many names."""
  more = ', ...' if len(names) > _NAMES_IN_WARNING else ''
  return '; '.join(names[:_NAMES_IN_WARNING]) + more


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
