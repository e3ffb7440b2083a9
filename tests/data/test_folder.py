import numpy as np
from PIL import EpsImagePlugin, Image
import pytest

from qgan_jax import data
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
  _save(tmp_path / 'd.gif', 40, size=(7, 9))
  _save(tmp_path / '.hidden' / 'e.png', 50)
  (tmp_path / 'notes.txt').write_text('no image')
  found = _load(tmp_path)
  assert found.name.startswith('pictures-')
  assert found.train_labels is None
  assert found.num_classes == 0
  assert _everything(found).shape == (4, 6, 6, 3)
  assert found.train_images.dtype == np.uint8
  values = sorted(_everything(found).mean((1, 2, 3)).round())
  np.testing.assert_allclose(values, [10, 20, 30, 40], atol=1)


def _pixels(found):
  return found.train_images.tobytes(), found.test_images.tobytes()


def test_data_are_what_they_hold_wherever_it_lies(tmp_path):
  for i in range(40):
    _save(tmp_path / 'a' / f'{i}.png', i)
    _save(tmp_path / 'b' / 'deeper' / f'{40 - i}.png', i)
  found, moved = _load(tmp_path / 'a'), _load(tmp_path / 'b')
  assert moved.name == found.name
  assert moved.pictures == found.pictures
  assert _pixels(moved) == _pixels(found)
  assert _load(tmp_path / 'a', image_size=3).name == found.name
  _save(tmp_path / 'b' / '0.png', 200)
  changed = _load(tmp_path / 'b')
  assert changed.name != found.name
  assert len(set(changed.pictures) ^ set(found.pictures)) == 1


def test_added_files_move_none_to_the_other_part(tmp_path):
  for i in range(100):
    _save(tmp_path / f'{i}.png', i)
  before = _load(tmp_path)
  for i in range(100, 150):
    _save(tmp_path / f'a{i}.png', i)
  after = _load(tmp_path)
  assert len(after.train_images) > len(before.train_images)
  for name in ('train_images', 'test_images'):
    values = [
      set(getattr(found, name)[:, 0, 0, 0].tolist())
      for found in (before, after)
    ]
    assert values[0] <= values[1]


def test_views_of_one_name_stay_together(tmp_path):
  for view in range(4):
    for hero in range(60):
      _save(tmp_path / f'{view}' / f'{hero}.png', 4 * hero + view)
  found = _load(tmp_path, group='name')
  heroes = found.test_images[:, 0, 0, 0] // 4
  assert 1 <= len(np.unique(heroes)) < 30
  assert (np.unique(heroes, return_counts=True)[1] == 4).all()
  assert np.bincount(found.test_labels).tolist() == [len(heroes) // 4] * 4
  apart = _load(tmp_path).test_images[:, 0, 0, 0] // 4
  assert (np.unique(apart, return_counts=True)[1] < 4).any()


def test_a_class_is_part_of_the_data(tmp_path):
  for folder in ('ant', 'bee'):
    for i in range(3):
      _save(tmp_path / folder / f'{i}.png', i + 10 * len(folder))
      _save(tmp_path / folder / f'{folder}{i}.png', i + len(folder[0]) + 100)
  name = _load(tmp_path).name
  (tmp_path / 'bee').rename(tmp_path / 'wasp')
  assert _load(tmp_path).name != name


def test_copies_of_one_picture_cannot_be_split(tmp_path):
  for name in 'ab':
    _save(tmp_path / f'{name}.png', 1)
  with pytest.raises(UserError, match='all alike'):
    _load(tmp_path)


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
  for name, white in (('a', 255), ('b', 254)):
    picture = Image.fromarray(np.minimum(pixels, white))
    picture.save(tmp_path / f'{name}.png', exif=exif)
  upright = _load(tmp_path, image_size=8).train_images[0, ..., 0]
  np.testing.assert_array_equal(upright > 0, np.rot90(pixels, -1) > 0)


def test_subfolders_are_classes(tmp_path):
  for label, kind in enumerate(['ant', 'bee', 'cat']):
    for i in range(10):
      _save(tmp_path / kind / f'{i}.png', 10 * label + i)
  found = _load(tmp_path)
  assert found.num_classes == 3
  assert found.class_names == ('ant', 'bee', 'cat')
  assert found.train_labels.dtype == np.int32
  assert set(found.test_labels) == set(found.train_labels) == {0, 1, 2}
  labels = np.concatenate([found.train_labels, found.test_labels])
  values = _everything(found)[:, 0, 0, 0]
  np.testing.assert_array_equal(values // 10, labels)
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
  assert 'text.jpg (damaged, or of a format that is not read)' in caplog.text


def test_pictures_that_are_read_twice_are_warned_of_once(tmp_path, caplog):
  for i in range(4):
    _save(tmp_path / f'{i}.png', i, size=(3, 3))
  _save(tmp_path / 'move.gif', 9, save_all=True, append_images=[_frame(1)])
  (tmp_path / 'text.jpg').write_text('not a picture')
  (tmp_path / 'notes.txt').write_text('no picture')
  assert _load(tmp_path).pixel_art  # So they were read again, as such.
  for name in ('move.gif', 'text.jpg', 'notes.txt'):
    assert caplog.text.count(name) == 1


def _frame(value, size=(6, 6)):
  return Image.new('L', size, value)


@pytest.mark.parametrize('ending', ['gif', 'tif', 'png', 'webp'])
def test_of_several_frames_or_pages_the_first_is_read(tmp_path, ending, caplog):
  whole = {'lossless': True} if ending == 'webp' else {}
  others = [_frame(200), _frame(100)]
  _save(tmp_path / 'one.png', 7)
  _save(tmp_path / f'two.{ending}', 7, **whole)
  _save(
    tmp_path / f'many.{ending}',
    50,
    save_all=True,
    append_images=others,
    **whole,
  )
  found = _load(tmp_path)
  assert sorted(np.unique(_everything(found))) == [7, 50]
  assert '1 picture(s)' in caplog.text
  said = 'first is read (save others as pictures of their own)'
  assert f'{said}: many.{ending}' in caplog.text


def test_damage_behind_the_first_frame_does_not_matter(tmp_path):
  others = [_frame(value) for value in (200, 100)]
  _save(tmp_path / 'whole.gif', 50, save_all=True, append_images=others)
  whole = (tmp_path / 'whole.gif').read_bytes()
  # Within the header of the second frame.
  second = whole.index(b'\x2c', whole.index(b'\x2c') + 1)
  (tmp_path / 'cut.gif').write_bytes(whole[: second + 3])
  assert len(_everything(_load(tmp_path))) == 2


def test_folders_of_one_picture_each_are_no_classes(tmp_path, caplog):
  for i in range(30):
    _save(tmp_path / f'scan {i}' / 'page.png', i)
  found = _load(tmp_path)
  assert len(_everything(found)) == 30
  assert found.num_classes == 0
  assert found.train_labels is None
  assert 'each of the 30 folders' in caplog.text
  _save(tmp_path / 'scan 0' / 'second.png', 99)
  assert _load(tmp_path).num_classes == 30


def test_no_picture_starts_another_program(tmp_path, caplog, monkeypatch):
  """Of PostScript, which Pillow hands to Ghostscript, by whatever name."""
  started = []
  monkeypatch.setattr(
    EpsImagePlugin, 'Ghostscript', lambda *_, **__: started.append(1)
  )
  for i in range(3):
    _save(tmp_path / f'{i}.png', i)
  program = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\n'
  for name in ('a.png', 'b.eps'):
    (tmp_path / name).write_bytes(program)
  assert len(_everything(_load(tmp_path))) == 3
  assert not started
  assert 'a.png' in caplog.text


@pytest.mark.parametrize(
  ('files', 'says'),
  [
    (None, 'There is no image folder'),
    ([], 'holds no images'),
    (['a.heic', 'b.svg'], '2 other file.*, such as .a.heic.: save .* as PNG'),
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


def test_transparency_is_kept_where_there_is_some(tmp_path):
  for i in range(3):
    _save(tmp_path / f'{i}.png', i + 1)
  picture = Image.new('RGBA', (6, 6), (200, 100, 50, 0))
  picture.save(tmp_path / 'transparent.png')
  everything = _everything(_load(tmp_path))
  assert everything.shape[-1] == 4
  assert sorted(everything[:, 0, 0].tolist()) == [
    [0, 0, 0, 0], *([i, i, i, 255] for i in (1, 2, 3))
  ]  # fmt: skip
  flat = _everything(_load(tmp_path, channels=3))
  assert sorted(flat[:, 0, 0, 0]) == [1, 2, 3, 255]


@pytest.mark.parametrize(
  ('most', 'bits'), [(200, 8), (4095, 12), (4096, 16), (60_000, 16)]
)
def test_16_bit_files_of_fewer_bits(tmp_path, caplog, most, bits):
  values = np.array([most, most // 2, most // 4])
  for i, value in enumerate(values):
    picture = np.full((6, 6), value, np.uint16)
    Image.fromarray(picture).save(tmp_path / f'{i}.png')
  found = _everything(_load(tmp_path))[:, 0, 0, 0]
  expected = np.round(values / (2**bits - 1) * 255)
  np.testing.assert_array_equal(sorted(found), sorted(expected))
  assert ('taken for white' in caplog.text) == (bits < 16)


def test_16_bit_files_of_any_size(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(4):
    values = rng.integers(0, 65536, (12, 12), np.uint16)
    Image.fromarray(values).save(tmp_path / f'{i}.png')
  for size in (6, 24):
    assert _everything(_load(tmp_path, image_size=size)).shape[:2] == (4, size)


def test_pixel_art_is_recognized_by_its_colours(tmp_path, caplog):
  rng = np.random.default_rng(0)
  art = rng.choice(np.array([0, 80, 255], np.uint8), (4, 9, 9))
  for i, pixels in enumerate(art):
    Image.fromarray(pixels).save(tmp_path / f'{i}.png')
  expected = {pixels.repeat(2, 0).repeat(2, 1).tobytes() for pixels in art}

  def found(**options):
    everything = _everything(_load(tmp_path, image_size=18, **options))
    return {pixels.tobytes() for pixels in everything}

  assert found() == expected
  assert 'pixel_art=false' in caplog.text
  assert found(pixel_art=False) != expected
  caplog.clear()
  assert found(pixel_art=True) == expected
  assert not caplog.text
  for i in range(5):
    noise = rng.integers(0, 256, (20, 20), np.uint8)
    Image.fromarray(noise).save(tmp_path / f'noise{i}.png')
  assert not found() & expected
  assert 'pixel_art=false' not in caplog.text


def test_pictures_of_the_right_size_are_not_asked(tmp_path, caplog):
  for i in range(4):
    _save(tmp_path / f'{i}.png', i)
  _load(tmp_path)
  assert 'pixel_art=false' not in caplog.text


def test_pictures_are_fitted(tmp_path):
  for i in range(2):
    _save(tmp_path / f'{i}.png', 10 + i, mode='LA', size=(6, 3))
  found = _everything(_load(tmp_path, fit='pad', channels=4))
  assert (found[..., 3].sum(axis=(1, 2)) == 6 * 3 * 255).all()


def test_a_class_needs_pictures_to_train_on(tmp_path):
  for place in ('train/ant', 'train/bee', 'test/ant', 'test/wasp'):
    _save(tmp_path / place / '1.png', 1)
  with pytest.raises(UserError, match="class 'wasp' has no images"):
    _load(tmp_path)


def test_opaque_pictures_among_transparent_ones_have_a_transparent_border(
  tmp_path,
):
  for i in range(3):
    _save(tmp_path / f'opaque{i}.png', 10 + i, mode='RGB', size=(6, 3))
    layer = Image.new('RGBA', (6, 3), (50, 60, 70, 100 + i))
    layer.save(tmp_path / f'layer{i}.png')
  found = _everything(_load(tmp_path, fit='pad'))
  assert found.shape[-1] == 4
  assert not found[:, 0].any()
  assert found[:, 2].all()


def test_what_was_taken_for_white_is_known(tmp_path):
  for i, value in enumerate((4095, 1000)):
    Image.fromarray(np.full((6, 6), value, np.uint16)).save(
      tmp_path / f'{i}.png'
    )
  assert _load(tmp_path).white == 4095
