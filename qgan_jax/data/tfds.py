"""Reads TensorFlow Datasets without TensorFlow; no other file uses TFDS."""

from concurrent import futures
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import tqdm

from qgan_jax.data import images
from qgan_jax.data.dataset import ImageDataset, split_off_test
from qgan_jax.data.download import Original
from qgan_jax.errors import did_you_mean, expand_home, UserError

# Below this many compressed bytes an image is decoded faster than a thread
# is handed the work (measured with PNG and JPEG).
_BYTES_WORTH_A_THREAD = 8192


def _import() -> Any:
  """Returns the `tensorflow_datasets` module; the import takes a second."""
  import tensorflow_datasets  # noqa: PLC0415

  return tensorflow_datasets


def default_data_dir() -> Path:
  """Returns TFDS's data folder: `$TFDS_DATA_DIR`, or one in the home folder."""
  default = os.path.join('~', 'tensorflow_datasets')
  return Path(expand_home(os.environ.get('TFDS_DATA_DIR') or default))


def check_name(source: str) -> str:
  """Returns `'celeb_a'` for `'celeb_a/config:1.0.0'`, if TFDS knows that.

  Raises:
    UserError: TFDS knows no such data set; the nearest names are given.
  """
  tfds = _import()
  name, _ = tfds.core.naming.parse_builder_name_kwargs(source)
  known = tfds.list_builders(with_community_datasets=False)
  if str(name) not in known:
    hint = did_you_mean(str(name).lower(), [*known, 'digits'], most=3)
    hint += ' ' if hint else ''
    raise UserError(
      f'There is no data set {source!r}; {hint}Known are the names in the '
      "TensorFlow Datasets catalogue, 'digits', and 'folder:PATH'."
    )
  return str(name)


def version(name: str) -> str:
  """Returns the version of a set that TFDS itself would prepare."""
  return str(_import().builder_cls(name).VERSION)


def original_files(name: str) -> dict[str, Original]:
  """Returns the original files of a set by name, as TFDS records them."""
  infos = _import().builder_cls(name).url_infos
  return {
    url.rsplit('/', 1)[-1]: Original(url, int(info.size), info.checksum)
    for url, info in infos.items()
  }


def find_prepared(source: str, *, data_dir: Path) -> Any | None:
  """Returns the TFDS builder of a set prepared in `data_dir`, or None.

  It is made from the prepared files alone. So it works for a user's own data
  sets, and for those whose preparation needs TensorFlow.

  Raises:
    UserError: `source` is malformed.
  """
  tfds = _import()
  # Not in TFDS's public API. `tfds.builder` would run the set's own code
  # first, which may import TensorFlow.
  from tensorflow_datasets.core import read_only_builder  # noqa: PLC0415

  try:
    name, options = tfds.core.naming.parse_builder_name_kwargs(
      source, data_dir=os.fspath(data_dir)
    )
    return read_only_builder.builder_from_files(str(name), **options)
  except tfds.core.DatasetNotFoundError:
    return None
  except ValueError:
    raise UserError(
      f'{source!r} is not a TensorFlow Datasets name; write name, '
      "name/config, or either with a version, as in 'mnist:3.0.1'."
    ) from None


def load(
  builder: Any, *, image_size: int | images.Size, channels: int | None = None
) -> ImageDataset:
  """Decodes a prepared set once; each image is fitted by `images.to_array`.

  The held-out images are the split `test`, else `validation`, else those that
  `dataset.hold_out` draws from `train`. There are labels if the set has a class
  feature `label`; classes without an image in `train` are left out, and so is a
  split in which no image has a label of these.

  Args:
    builder: What `find_prepared` returned.
    image_size: Height and width of the result, in pixels, or one number.
    channels: 1 or 3; None keeps grey sets grey and makes all others RGB.

  Returns:
    The data set, named `'<name>:<version>'`.

  Raises:
    UserError: The set has no 8-bit feature `image` or no split `train`, is not
      stored as ArrayRecord, or its files are damaged.
  """
  tfds = _import()
  info = builder.info
  name = ':'.join(info.full_name.rsplit('/', 1))
  features = dict(info.features.items())
  image = features.get('image')
  if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
    have = ', '.join(f'{k} ({type(v).__name__})' for k, v in features.items())
    raise UserError(
      f"The data set {name!r} has no 8-bit feature 'image'; its features are "
      f'{have}. Choose a data set of images.'
    )
  if 'train' not in info.splits:
    raise UserError(
      f"The data set {name!r} has no split 'train' but {sorted(info.splits)}; "
      'choose another one.'
    )
  label = features.get('label')
  labelled = isinstance(label, tfds.features.ClassLabel)
  num_classes = label.num_classes if label and labelled else 0
  class_names = tuple(label.names) if label and labelled else ()
  if channels is None:
    channels = 1 if image.shape[-1] == 1 else 3

  def read(split: str) -> tuple[np.ndarray, np.ndarray | None]:
    records = _records(builder, split=split, name=name)
    return _decode(
      records,
      image_size=image_size,
      channels=channels,
      labelled=labelled,
      name=name,
    )

  train_images, train_labels = read('train')
  there = np.arange(num_classes)
  if train_labels is not None:
    # Some sets declare classes that they do not have, such as EMNIST's letters.
    there = np.unique(train_labels)
    train_labels = np.searchsorted(there, train_labels).astype(np.int32)
    num_classes = len(there)
    class_names = tuple(class_names[i] for i in there)
  for split in ('test', 'validation'):
    if split not in info.splits:
      continue
    test_images, test_labels = read(split)
    if test_labels is not None:
      known = np.isin(test_labels, there)
      test_images, test_labels = test_images[known], test_labels[known]
      test_labels = np.searchsorted(there, test_labels).astype(np.int32)
    # Where the labels of the test split are secret, all of them are −1.
    if len(test_images):
      return ImageDataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=num_classes,
        class_names=class_names,
      )
  return split_off_test(
    name=name,
    images=train_images,
    labels=train_labels,
    num_classes=num_classes,
    class_names=class_names,
  )


def _records(builder: Any, *, split: str, name: str) -> Any:
  """Returns the serialized examples of a split, by index."""
  tfds = _import()
  try:
    return builder.as_data_source(
      split,
      deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
      file_format='array_record',
    )
  except (NotImplementedError, ValueError):
    raise UserError(
      f'The data set {name!r} in {str(builder.data_path)!r} is stored as '
      f'{builder.info.file_format.value}, which only TensorFlow reads; prepare '
      f'it again, in another folder: {prepare_command(builder.name)}'
    ) from None
  except (OSError, RuntimeError) as error:
    raise UserError(
      f'The data set {name!r} in {str(builder.data_path)!r} cannot be opened '
      f'({error}); delete that folder and prepare it again.'
    ) from None


def prepare_command(name: str) -> str:
  """Returns the shell command that prepares a set (it needs TensorFlow)."""
  return f'tfds build {name} --file_format=array_record --data_dir=DIR'


def _decode(
  records: Any,
  *,
  image_size: int | images.Size,
  channels: int,
  labelled: bool,
  name: str,
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns uint8 `[N, S, S, C]` and int32 `[N]`, or None without labels."""
  # Reads the stored protocol buffers directly: TFDS's own decoding makes an
  # array per feature, and is three times slower on small images.
  from tensorflow_datasets.proto import tf_example_pb2  # noqa: PLC0415

  pixels = np.empty(
    (len(records), *images.size_of(image_size), channels), np.uint8
  )
  labels = np.empty(len(records), np.int32) if labelled else None

  def decode(chunk: range) -> None:
    examples = [
      tf_example_pb2.Example.FromString(record).features.feature
      for record in records.__getitems__(list(chunk))
    ]
    for i, example in zip(chunk, examples, strict=True):
      file = io.BytesIO(example['image'].bytes_list.value[0])
      with Image.open(file) as image:
        pixels[i] = images.to_array(
          image, image_size=image_size, channels=channels
        )
    if labels is not None:
      labels[chunk.start : chunk.stop] = [
        example['label'].int64_list.value[0] for example in examples
      ]

  bar = tqdm.tqdm(
    total=len(records), desc=f'reading {name}', disable=None, leave=False
  )
  try:
    small = len(records[0]) < _BYTES_WORTH_A_THREAD
    size = 4096 if small else 64
    starts = range(0, len(records), size)
    chunks = [range(s, min(s + size, len(records))) for s in starts]
    workers = 1 if small else os.cpu_count()
    with bar, futures.ThreadPoolExecutor(workers) as pool:
      for chunk, _ in zip(chunks, pool.map(decode, chunks), strict=True):
        bar.update(len(chunk))
  # ArrayRecord, the protocol buffers and Pillow each raise types of their own
  # for damaged bytes.
  except Exception as error:  # noqa: BLE001
    raise UserError(
      f'The files of the data set {name!r} are damaged ({error}); delete its '
      'folder and prepare it again.'
    ) from error
  return pixels, labels
