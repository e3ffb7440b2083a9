import numpy as np
from PIL import Image
import pytest

from qgan_jax import data
from qgan_jax.data import dataset
from qgan_jax.errors import UserError


def _save(path, value, *, mode='L', size=(6, 6), **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('L', size, value).convert(mode).save(path, **options)


def _load(folder, **options):
  return data.load(f'folder:{folder}', **{'image_size': 6, **options})


def _everything(found):
  return np.concatenate([found.train_images, found.test_images])


def test_formats_and_sizes_are_mixed(tmp_path):
  _save(tmp_path / 'a.png', 10)
  _save(tmp_path / 'b.JPG', 20, mode='RGB', size=(30, 12), quality=95)
  _save(tmp_path / 'deep' / 'er' / 'c.webp', 30, mode='RGB', lossless=True)
  _save(tmp_path / 'd.gif', 40, size=(5, 9))
  _save(tmp_path / '.hidden' / 'e.png', 50)
  (tmp_path / 'notes.txt').write_text('no image')
  found = _load(tmp_path)
  assert found.name.startswith(f'folder:{tmp_path.name}-')
  assert found.train_labels is None
  assert found.num_classes == 0
  assert found.train_images.shape == (3, 6, 6, 3)
  assert found.train_images.dtype == np.uint8
  values = sorted(_everything(found).mean((1, 2, 3)).round())
  np.testing.assert_allclose(values, [10, 20, 30, 40], atol=1)


def test_a_folders_name_is_that_of_its_images(tmp_path):
  names = []
  for i in range(3):
    for name in 'a.png', 'b.png':
      _save(tmp_path / f'{i}' / 'cats' / name, 10 if i < 2 else 20)
    names.append(_load(tmp_path / f'{i}' / 'cats').name)
  # The same images elsewhere, then others in a folder of the same name.
  assert names[0] == names[1] != names[2]
  assert _load(tmp_path / '0' / 'cats', image_size=3).name == names[0]
  (tmp_path / '1' / 'cats' / 'a.png').rename(tmp_path / '1' / 'cats' / 'c.png')
  assert _load(tmp_path / '1' / 'cats').name != names[0]


def test_a_folder_is_looked_for_without_reading_it(tmp_path):
  with pytest.raises(UserError, match='no image folder'):
    data.check(f'folder:{tmp_path}/none')
  with pytest.raises(UserError, match='holds no images'):
    data.check(f'folder:{tmp_path}')
  (tmp_path / 'a.png').write_text('no image, as loading would find')
  data.check(f'folder:{tmp_path}')


def test_grey_folders_stay_grey_unless_told(tmp_path):
  for i in range(3):
    _save(tmp_path / f'{i}.png', i)
  assert _load(tmp_path).train_images.shape[-1] == 1
  assert _load(tmp_path, channels=3).train_images.shape[-1] == 3


def test_the_camera_held_sideways(tmp_path):
  pixels = np.zeros((8, 8), np.uint8)
  pixels[:4] = 255
  exif = Image.Exif()
  exif[0x0112] = 6  # Turn by 90 degrees clockwise to see it upright.
  for name in 'ab':
    Image.fromarray(pixels).save(tmp_path / f'{name}.png', exif=exif)
  upright = _load(tmp_path, image_size=8).train_images[0, ..., 0]
  np.testing.assert_array_equal(upright, np.rot90(pixels, -1))


def test_subfolders_are_classes(tmp_path):
  for label, kind in enumerate(['ant', 'bee', 'cat']):
    for i in range(10):
      _save(tmp_path / kind / f'{i}.png', 10 * label)
  found = _load(tmp_path)
  assert found.num_classes == 3
  assert found.train_labels.dtype == np.int32
  assert len(found.test_labels) == 3
  labels = np.concatenate([found.train_labels, found.test_labels])
  np.testing.assert_array_equal(_everything(found)[:, 0, 0, 0], 10 * labels)
  np.testing.assert_array_equal(np.bincount(labels), [10, 10, 10])


def test_one_subfolder_is_no_class(tmp_path):
  for i in range(3):
    _save(tmp_path / 'all' / f'{i}.png', i)
  assert _load(tmp_path).num_classes == 0


def test_broken_files_are_named_and_left_out(tmp_path, caplog):
  for i in range(3):
    _save(tmp_path / f'{i}.png', i)
  noise = np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)
  Image.fromarray(noise).save(tmp_path / 'cut.png')
  whole = (tmp_path / 'cut.png').read_bytes()
  (tmp_path / 'cut.png').write_bytes(whole[:1000])
  (tmp_path / 'text.jpg').write_text('not a picture')
  found = _load(tmp_path)
  assert len(_everything(found)) == 3
  assert '2 of 5 image(s)' in caplog.text
  assert 'cut.png' in caplog.text
  assert 'text.jpg' in caplog.text


@pytest.mark.parametrize(
  ('files', 'says'),
  [
    (None, 'There is no image folder'),
    ([], 'holds no images'),
    (['a.png', 'b.png'], '2 of 2 image.*cannot be read: a.png'),
  ],
)
def test_hopeless_folders(tmp_path, files, says):
  folder = tmp_path / 'pictures'
  if files is not None:
    folder.mkdir()
    for file in files:
      (folder / file).write_text('not a picture')
  with pytest.raises(UserError, match=says):
    _load(folder)


def test_one_image_cannot_be_split(tmp_path):
  _save(tmp_path / 'a.png', 1)
  with pytest.raises(UserError, match='at least two'):
    _load(tmp_path)


@pytest.mark.parametrize(
  ('num', 'held_out'), [(2, 1), (15, 2), (1000, 100), (200_000, 10_000)]
)
def test_the_split_is_a_fixed_partition(num, held_out):
  train, test = dataset.hold_out(num)
  assert len(test) == held_out
  np.testing.assert_array_equal(np.sort([*train, *test]), np.arange(num))
  again = dataset.hold_out(num)
  np.testing.assert_array_equal(test, again[1])


def test_a_split_in_folders_is_the_split(tmp_path, caplog):
  for split, value in (('train', 10), ('val', 20), ('test', 30)):
    for kind in ('ant', 'bee'):
      for i in range(2):
        _save(tmp_path / 'all' / split / kind / f'{i}.png', value)
  found = _load(tmp_path)
  assert np.unique(found.train_images) == [10]
  assert np.unique(found.test_images) == [30]
  assert found.train_labels.tolist() == found.test_labels.tolist()
  assert found.test_labels.tolist() == [0, 0, 1, 1]
  assert '4 image(s) for validation' in caplog.text


def test_what_is_no_picture_is_counted(tmp_path, caplog):
  for i in range(3):
    _save(tmp_path / f'{i}.png', i)
  (tmp_path / 'notes.txt').write_text('no picture')
  _load(tmp_path)
  assert '1 file(s)' in caplog.text
  assert 'notes.txt' in caplog.text
