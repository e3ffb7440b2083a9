"""MNIST and similar data sets from their original IDX files.

TFDS needs TensorFlow to prepare these sets. So this file reads the original
files itself: from a folder, or downloaded once from the addresses that TFDS
uses, with the checksums that TFDS records.
"""

import gzip
import hashlib
import math
from pathlib import Path
import zlib

import numpy as np

from qgan_jax.data import images, tfds
from qgan_jax.data.dataset import ImageDataset
from qgan_jax.data.download import fetch, UnavailableError
from qgan_jax.errors import UserError

NAMES = ('mnist', 'fashion_mnist', 'kmnist')
FILES = (
  'train-images-idx3-ubyte',
  'train-labels-idx1-ubyte',
  't10k-images-idx3-ubyte',
  't10k-labels-idx1-ubyte',
)
_NUM_CLASSES = 10
_MAX_DIMENSIONS = 3  # Of images; labels have one.


def load(
  name: str,
  *,
  data_dir: Path,
  image_size: int | images.Size,
  channels: int | None = None,
  download: bool = True,
) -> ImageDataset:
  """Loads a set from its four original files.

  Each is looked for in `data_dir`, `data_dir/<name>` and
  `data_dir/<name>-original`, into which files are downloaded. A `.gz` file must
  have the SHA-256 that TFDS records. Files without `.gz` have no recorded
  checksum: they are read only from `data_dir/<name>`, and their structure is
  checked.

  Args:
    name: One of `NAMES`.
    data_dir: The data folder; made if something is downloaded.
    image_size: Height and width of the result, in pixels, or one number.
    channels: 1 or 3; None means 1.
    download: Whether the network may be used.

  Returns:
    The data set, named `'<name> (original files)'`.

  Raises:
    UnavailableError: A file is missing and cannot be downloaded.
    UserError: A file is damaged or belongs to another set, or `data_dir` cannot
      be written to.
  """
  recorded = tfds.original_files(name)
  arrays = []
  for file in FILES:
    original = recorded[f'{file}.gz']
    path = _find(file, name=name, data_dir=data_dir, sha256=original.sha256)
    if path is None:
      if not download:
        raise UnavailableError(f'{file}.gz is not in {str(data_dir)!r}')
      path = data_dir / f'{name}-original' / f'{file}.gz'
      fetch(original, path)
    arrays.append(parse_idx(_contents(path), source=path))
  train_images, train_labels, test_images, test_labels = arrays
  for pixels, labels in (
    (train_images, train_labels),
    (test_images, test_labels),
  ):
    if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
      raise UserError(
        f'The {name} files in {str(data_dir)!r} do not belong together: images '
        f'of shape {pixels.shape}, labels of shape {labels.shape}.'
      )
    if not pixels.size:
      raise UserError(
        f'The {name} files in {str(data_dir)!r} hold no images: their shape is '
        f'{pixels.shape}; replace them by the original ones.'
      )
    if labels.max(initial=0) >= _NUM_CLASSES:
      raise UserError(
        f'The {name} labels in {str(data_dir)!r} reach {labels.max()}; '
        f'expected 0 to {_NUM_CLASSES - 1}.'
      )
  return ImageDataset(
    name=f'{name} (original files)',
    train_images=images.resize_all(
      train_images[..., None], image_size=image_size, channels=channels
    ),
    train_labels=train_labels.astype(np.int32),
    test_images=images.resize_all(
      test_images[..., None], image_size=image_size, channels=channels
    ),
    test_labels=test_labels.astype(np.int32),
    num_classes=_NUM_CLASSES,
  )


def parse_idx(data: bytes, *, source: Path) -> np.ndarray:
  """Parses an IDX file of unsigned bytes (LeCun, "The MNIST database").

  Layout, big-endian: two zero bytes, the type (8 is uint8), the number of
  dimensions, each dimension in four bytes, the values.

  Args:
    data: The whole file, uncompressed.
    source: Where it came from, for the error.

  Returns:
    Read-only uint8 of the shape that the header gives.

  Raises:
    UserError: The header or the length is wrong.
  """
  if len(data) < 4 or data[:3] != b'\x00\x00\x08':
    raise UserError(
      f'{str(source)!r} is not an IDX file of bytes: it begins with '
      f'0x{data[:4].hex()}, not 0x000008...; replace it by the original.'
    )
  if data[3] > _MAX_DIMENSIONS:
    raise UserError(
      f'{str(source)!r} has {data[3]} dimensions, and images have '
      f'{_MAX_DIMENSIONS}; replace it by the original.'
    )
  header = 4 + 4 * data[3]
  shape = tuple(
    int.from_bytes(data[i : i + 4], 'big') for i in range(4, header, 4)
  )
  if len(data) != header + math.prod(shape):
    raise UserError(
      f'{str(source)!r} has {len(data)} bytes where its header {shape} asks '
      f'for {header + math.prod(shape)}; replace it by the original.'
    )
  return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find(file: str, *, name: str, data_dir: Path, sha256: str) -> Path | None:
  """Returns a verified local copy of a file, or None."""
  downloads = data_dir / f'{name}-original'
  for folder in (data_dir, data_dir / name, downloads):
    path = folder / f'{file}.gz'
    if not path.is_file():
      continue
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual == sha256:
      return path
    # A bad file in the folder of downloads is just downloaded again.
    if folder != downloads:
      raise UserError(
        f'{str(path)!r} is not the original file of {name}: its SHA-256 is '
        f'{actual}, expected {sha256}; replace it, or take it out of the '
        'folder to have it downloaded.'
      )
  raw = data_dir / name / file
  return raw if raw.is_file() else None


def _contents(path: Path) -> bytes:
  try:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == '.gz' else data
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'{str(path)!r} cannot be read: {error}.') from None
