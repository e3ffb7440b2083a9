"""Real TFDS folders, written here: ArrayRecord files and their metadata."""

import io
import os
from pathlib import Path
import subprocess
import sys

from array_record.python import array_record_module
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from qgan_jax import data
from qgan_jax.data import images
from qgan_jax.errors import UserError

COLOUR = tfds.features.Image(shape=(None, None, 3))
KINDS = tfds.features.ClassLabel(num_classes=3)


def _encode(pixels):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'PNG')
  return buffer.getvalue()


def _write(root, splits, *, features, file_format='array_record'):
  """Writes `{split: [(encoded image, label or None)]}` as TFDS lays it out."""
  folder = root / 'my_set' / '1.0.0'
  folder.mkdir(parents=True)
  infos = []
  for split, examples in splits.items():
    path = folder / f'my_set-{split}.{file_format}-00000-of-00001'
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    for encoded, label in examples:
      example = tf_example_pb2.Example()
      feature = example.features.feature
      feature['image'].bytes_list.value.append(encoded)
      if label is not None:
        feature['label'].int64_list.value.append(label)
      writer.write(example.SerializeToString())
    writer.close()
    infos.append(
      tfds.core.SplitInfo(
        name=split, shard_lengths=[len(examples)], num_bytes=1
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=tfds.features.FeaturesDict(features),
    split_infos=infos,
    filename_template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
    check_data=False,
  )
  return folder


def _examples(num, *, seed=0, shape=(8, 8, 3)):
  pixels = np.random.default_rng(seed).integers(0, 256, (num, *shape), np.uint8)
  return pixels, [(_encode(x), i % 3) for i, x in enumerate(pixels)]


def _load(root, source='my_set', **options):
  return data.load(source, data_dir=str(root), **{'image_size': 8, **options})


@pytest.mark.parametrize('held_out', ['test', 'validation'])
def test_pixels_labels_and_splits(tmp_path, held_out):
  train, train_examples = _examples(7)
  test, test_examples = _examples(5, seed=1)
  _write(
    tmp_path,
    {'train': train_examples, held_out: test_examples},
    features={'image': COLOUR, 'label': KINDS},
  )
  found = _load(tmp_path)
  assert found.name == 'my_set:1.0.0'
  assert found.num_classes == 3
  assert not found.is_standin
  np.testing.assert_array_equal(found.train_images, train)
  np.testing.assert_array_equal(found.test_images, test)
  np.testing.assert_array_equal(found.train_labels, np.arange(7) % 3)
  np.testing.assert_array_equal(found.test_labels, np.arange(5) % 3)
  assert found.train_labels.dtype == np.int32


def test_without_labels_or_test_split_a_tenth_is_held_out(tmp_path):
  pixels, examples = _examples(40)
  unlabelled = [(encoded, None) for encoded, _ in examples]
  _write(tmp_path, {'train': unlabelled}, features={'image': COLOUR})
  found = _load(tmp_path, 'my_set:1.0.0')
  assert found.train_labels is found.test_labels is None
  assert found.num_classes == 0
  assert len(found.test_images) == 4
  together = np.concatenate([found.train_images, found.test_images])
  assert sorted(map(bytes, together)) == sorted(map(bytes, pixels))


def test_classes_without_an_image_are_left_out(tmp_path):
  pixels, examples = _examples(12)
  train = [(picture, label + 1) for picture, label in examples]
  test = [*train[:6], (examples[6][0], 5)]
  kinds = tfds.features.ClassLabel(names=list('abcdef'))
  _write(
    tmp_path,
    {'train': train, 'test': test},
    features={'image': COLOUR, 'label': kinds},
  )
  found = _load(tmp_path)
  assert (found.num_classes, found.class_names) == (3, ('b', 'c', 'd'))
  np.testing.assert_array_equal(found.train_labels, np.arange(12) % 3)
  np.testing.assert_array_equal(found.test_labels, np.arange(6) % 3)
  np.testing.assert_array_equal(found.test_images, pixels[:6])


@pytest.mark.parametrize('others', [(), ('validation',)])
def test_a_test_split_of_secret_labels_is_not_held_out(tmp_path, others):
  pixels, examples = _examples(40)
  secret = [(picture, -1) for picture, _ in examples[:9]]
  _write(
    tmp_path,
    {'train': examples, 'test': secret} | dict.fromkeys(others, examples[:6]),
    features={'image': COLOUR, 'label': KINDS},
  )
  found = _load(tmp_path)
  if others:
    np.testing.assert_array_equal(found.test_images, pixels[:6])
  assert len(found.test_images) == (6 if others else 4)
  assert len(found.train_images) == (40 if others else 36)


def test_any_shape_is_cropped_and_resized_and_channels_forced(tmp_path):
  # More than a thread's share, and noise large enough for several threads.
  pixels, examples = _examples(300, shape=(60, 90, 3))
  _write(
    tmp_path,
    {'train': examples, 'test': examples[:2]},
    features={'image': COLOUR, 'label': KINDS},
  )
  for channels in (3, 1):
    found = _load(tmp_path, channels=channels)
    expected = [
      images.to_array(Image.fromarray(x), image_size=8, channels=channels)
      for x in pixels
    ]
    np.testing.assert_array_equal(found.train_images, expected)
    np.testing.assert_array_equal(found.train_labels, np.arange(300) % 3)


@pytest.mark.parametrize(
  ('splits', 'features', 'file_format', 'says'),
  [
    (
      ['train'],
      {'text': tfds.features.Text()},
      'array_record',
      r"no 8-bit feature 'image'; its features are text \(Text\)",
    ),
    (
      ['train'],
      {'image': tfds.features.Image(dtype=np.uint16)},
      'array_record',
      'no 8-bit feature',
    ),
    (['test'], {'image': COLOUR}, 'array_record', "no split 'train'"),
    (
      ['train'],
      {'image': COLOUR},
      'tfrecord',
      'as tfrecord.*tfds build',
    ),
  ],
  ids=['no image', '16 bit', 'no train', 'tfrecord'],
)
def test_unusable_sets(tmp_path, splits, features, file_format, says):
  examples = {split: _examples(2)[1] for split in splits}
  _write(tmp_path, examples, features=features, file_format=file_format)
  with pytest.raises(UserError, match=says):
    _load(tmp_path)


@pytest.mark.parametrize('damage', ['image', 'shorter', 'gone'])
def test_damaged_files(tmp_path, damage):
  _, examples = _examples(4)
  if damage == 'image':
    examples[2] = (examples[2][0][:40], 0)
  folder = _write(tmp_path, {'train': examples}, features={'image': COLOUR})
  file = next(folder.glob('*record-*'))
  if damage == 'shorter':
    file.write_bytes(file.read_bytes()[:-9])
  if damage == 'gone':
    file.unlink()
  with pytest.raises(UserError, match='damaged|cannot be opened'):
    _load(tmp_path)


@pytest.mark.parametrize(
  ('source', 'says'),
  [
    (
      'fashon_mnist',
      "'fashon_mnist'; did you mean 'fashion_mnist'",
    ),
    ('Digit', "did you mean 'digits'"),
    ('two words', 'is not a TensorFlow Datasets name'),
    ('', 'is not a TensorFlow Datasets name'),
    ('cifar10', 'not prepared.*TFDS_DATA_DIR.*folder:PATH.*--config=digits'),
    ('mnist:1.0.0', "the original files are 'mnist:3.0.1'"),
  ],
)
def test_unknown_or_unprepared_sets(tmp_path, source, says):
  with pytest.raises(UserError, match=says) as caught:
    _load(tmp_path, source)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('options', 'says'),
  [({'image_size': 0}, '0'), ({'channels': 2}, '2 ch')],
)
def test_impossible_shapes(options, says):
  with pytest.raises(UserError, match=says):
    data.load('digits', **{'image_size': 8, **options})


@pytest.mark.skipif(
  'TFDS_DATA_DIR' not in os.environ, reason='TFDS_DATA_DIR is not set'
)
def test_mnist_equals_its_original_files_bit_for_bit():
  original = Path(os.environ['TFDS_DATA_DIR']).parent / 'mnist'
  if not original.is_dir():
    pytest.skip('the original MNIST files are not beside TFDS_DATA_DIR')
  prepared = data.load('mnist', image_size=28)
  files = data.load('mnist', image_size=28, data_dir=str(original))
  assert prepared.name == 'mnist:3.0.1'
  assert files.name == 'mnist (original files)'
  for split, num in (('train', 60_000), ('test', 10_000)):
    rows = []
    for found in (prepared, files):
      pixels = getattr(found, f'{split}_images')
      labels = getattr(found, f'{split}_labels')
      assert pixels.shape == (num, 28, 28, 1)
      # TFDS shuffles what it writes, so compare as sorted sets of rows.
      row = np.concatenate([pixels.reshape(num, -1), labels[:, None]], axis=1)
      rows.append(sorted(map(bytes, row.astype(np.uint8))))
    assert rows[0] == rows[1]


def test_importing_is_light_and_tfds_is_silent(tmp_path):
  _write(tmp_path, {'train': _examples(4)[1]}, features={'image': COLOUR})
  code = """
import sys
from qgan_jax import data
heavy = {'tensorflow_datasets', 'sklearn', 'jax', 'tensorflow'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
data.load('my_set', data_dir=sys.argv[1], image_size=8)
for name in 'coco', 'cifar10', 'no_such_set':
  try:
    data.load(name, data_dir=sys.argv[1], image_size=8)
  except data.sources.UserError:
    pass
from qgan_jax.data import tfds
assert len(tfds.original_files('kmnist')) == 4
assert 'tensorflow' not in sys.modules
"""
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
