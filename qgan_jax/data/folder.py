"""A user's own folder of images."""

from collections.abc import Iterator
from concurrent import futures
import hashlib
import io
import os
from pathlib import Path

from absl import logging
import numpy as np
from PIL import Image, ImageOps
import tqdm

from qgan_jax.data import images
from qgan_jax.data.dataset import ImageDataset, split_off_test
from qgan_jax.errors import expand_home, UserError

_NAMES_IN_WARNING = 5


def load(
  path: str, *, image_size: int, channels: int | None = None
) -> ImageDataset:
  """Loads every image under a folder, whatever its size, format and mode.

  Images are turned as their EXIF data says, then treated by
  `images.to_array`. Where all of them lie in two or more sub-folders, these
  are the classes, in alphabetical order. A tenth, at most 10,000, is held out;
  which, depends on the number of images alone.

  Args:
    path: The folder; `~` is expanded, hidden files and folders are skipped.
    image_size: Height and width of the result, in pixels.
    channels: 1 or 3; None means 1 if all images are grey, else 3.

  Returns:
    The data set, named `'folder:<last part of the path>-<digest>'`: the digest
    is of the images' files, wherever they lie.

  Raises:
    UserError: The folder is missing, or fewer than two images can be read.
  """
  root, files = find(path)

  def read(file: Path) -> tuple[np.ndarray | str, bytes]:
    """The pixels or what is wrong, and a digest of the file and its name."""
    name = file.relative_to(root)
    digest = hashlib.sha256(os.fsencode(name))
    try:
      data = file.read_bytes()
      digest.update(data)
      with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        pixels = images.to_array(
          upright, image_size=image_size, channels=channels
        )
    # Pillow raises many types for broken files; one must not stop the loading.
    except Exception as error:  # noqa: BLE001
      return f'{name} ({error})', digest.digest()
    return pixels, digest.digest()

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    read_files = list(
      tqdm.tqdm(
        pool.map(read, files),
        total=len(files),
        desc='reading images',
        disable=None,
        leave=False,
      )
    )
  results = [result for result, _ in read_files]
  failures = [result for result in results if isinstance(result, str)]
  arrays = [result for result in results if not isinstance(result, str)]
  good = [
    file
    for file, result in zip(files, results, strict=True)
    if not isinstance(result, str)
  ]
  if failures:
    some = '; '.join(failures[:_NAMES_IN_WARNING])
    more = ', ...' if len(failures) > _NAMES_IN_WARNING else ''
    message = (
      f'{len(failures)} of {len(files)} image(s) in {str(root)!r} cannot be '
      f'read: {some}{more}'
    )
    if len(arrays) < 2:
      raise UserError(f'{message}. At least two readable ones are needed.')
    logging.warning('%s. They are left out.', message)
  if len(arrays) < 2:
    raise UserError(
      f'The folder {str(root)!r} holds one image; at least two are needed, '
      'one to train on and one to hold out.'
    )

  depth = max(array.shape[-1] for array in arrays)
  labels, num_classes = _classes(root, good)
  content = hashlib.sha256(b''.join(digest for _, digest in read_files))
  return split_off_test(
    name=f'folder:{root.resolve().name}-{content.hexdigest()[:8]}',
    images=np.stack([images.with_channels(array, depth) for array in arrays]),
    labels=labels,
    num_classes=num_classes,
  )


def find(path: str) -> tuple[Path, list[Path]]:
  """The folder of a path, and the files of images in it, in order.

  Raises:
    UserError: The folder is missing, or has no such files.
  """
  root = Path(expand_home(path))
  if not root.is_dir():
    raise UserError(
      f'There is no image folder {str(root)!r}; give the path of an existing '
      "one as 'folder:PATH'."
    )
  files = sorted(_image_files(root))
  if not files:
    raise UserError(
      f'The folder {str(root)!r} holds no images (looked in its sub-folders '
      'too); expected files such as .png, .jpg or .webp.'
    )
  return root, files


def _image_files(root: Path) -> Iterator[Path]:
  """Yields the files whose extension Pillow can open."""
  known = {
    extension
    for extension, kind in Image.registered_extensions().items()
    if kind in Image.OPEN
  }
  for folder, subfolders, names in os.walk(root):
    subfolders[:] = [
      name for name in subfolders if not name.startswith(('.', '__MACOSX'))
    ]
    for name in names:
      if Path(name).suffix.lower() in known and not name.startswith('.'):
        yield Path(folder, name)


def _classes(root: Path, files: list[Path]) -> tuple[np.ndarray | None, int]:
  """Returns int32 labels from the first sub-folder's name, and their number."""
  parts = [file.relative_to(root).parts for file in files]
  names = sorted({part[0] for part in parts})
  if len(names) < 2 or any(len(part) == 1 for part in parts):
    return None, 0
  labels = np.array([names.index(part[0]) for part in parts], np.int32)
  return labels, len(names)
