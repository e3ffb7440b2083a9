"""Pairs of pictures in two folders."""

import numpy as np
from PIL import Image
import pytest

from qgan_jax.data import load
from qgan_jax.errors import UserError


def save(path, value, size=6, mode='L'):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new(mode, (size, size), value).save(path)


def read(folder, pairs='in/out', **options):
  return load(f'folder:{folder}', image_size=6, pairs=pairs, **options)


def values(images):
  """(input, target) of every pair, by their first pixels."""
  return [tuple(map(int, pixels)) for pixels in images[:, 0, 0]]


def make(folder, count=40):
  for i in range(count):
    save(folder / 'in' / f'{i}.png', i)
    save(folder / 'out' / 'deep' / f'{i}.png', 0)  # Another name.
    save(folder / 'out' / f'{i}.bmp', 100 + i)


def test_pictures_of_one_name_are_a_pair(tmp_path, caplog):
  make(tmp_path)
  save(tmp_path / 'in' / 'alone.png', 77)
  save(tmp_path / 'other' / '1.png', 88)
  found = read(tmp_path)
  assert '41 picture(s) of pairs=in/out' in caplog.text
  assert found.input_channels == 1
  both = values(found.train_images) + values(found.test_images)
  assert sorted(both) == [(i, 100 + i) for i in range(40)]
  assert 0 < len(found.test_images) < 15
  np.testing.assert_array_equal(found.test_targets, found.test_images[..., 1:])
  assert found.train_targets.shape == (len(found.train_images), 6, 6, 1)
  assert (found.num_classes, found.class_names) == (0, ())
  assert len(found.pictures) == 80
  back = read(tmp_path, 'out/in')
  assert values(back.train_images)[0][0] >= 100
  assert back.name != found.name


def test_the_split_follows_the_inputs(tmp_path):
  make(tmp_path)
  found = read(tmp_path)
  held_out = {pair[0] for pair in values(found.test_images)}
  for i in range(0, 40, 2):  # Other targets, and copies under other names.
    save(tmp_path / 'out' / f'{i}.bmp', 200)
    save(tmp_path / 'in' / f'copy{i}.png', i)
    save(tmp_path / 'out' / f'copy{i}.png', 250)
  again = read(tmp_path)
  assert again.name != found.name
  assert {pair[0] for pair in values(again.test_images)} == held_out
  assert not held_out & {pair[0] for pair in values(again.train_images)}


def test_pairs_lie_in_one_part_of_a_split(tmp_path):
  for part, count in (('train', 5), ('test', 3)):
    for i in range(count):
      save(tmp_path / part / 'in' / f'{i}.png', 10 * i)
      save(tmp_path / part / 'out' / f'{i}.png', 10 * i + len(part))
  save(tmp_path / 'test' / 'in' / '4.png', 99)  # Its other is for training.
  found = read(tmp_path)
  assert sorted(values(found.train_images)) == [
    (10 * i, 10 * i + 5) for i in range(5)
  ]
  assert sorted(values(found.test_images)) == [
    (10 * i, 10 * i + 4) for i in range(3)
  ]


def test_both_have_the_channels_that_one_needs(tmp_path):
  for i in range(4):
    save(tmp_path / 'in' / f'{i}.png', 10 * i)
    save(tmp_path / 'out' / f'{i}.png', (i, 20, 30, 128), mode='RGBA')
  found = read(tmp_path)
  assert found.input_channels == 4
  pixels = found.train_images[0, 0, 0]
  assert pixels.shape == (8,)
  assert (pixels[3], pixels[7]) == (255, 128)


@pytest.mark.parametrize(
  ('pairs', 'says'),
  [
    ('in/outt', r"no folder 'outt' .*in, out\); did you mean 'out'"),
    ('out/nobody', r"no folder 'nobody'"),
  ],
)
def test_folders_that_are_not_there_are_named(tmp_path, pairs, says):
  make(tmp_path, 3)
  with pytest.raises(UserError, match=says):
    read(tmp_path, pairs)


def test_folders_without_a_pair(tmp_path):
  for i in range(3):
    save(tmp_path / 'in' / f'{i}.png', i)
    save(tmp_path / 'out' / f'x{i}.png', i)
  with pytest.raises(UserError, match="no picture in 'in' has the name"):
    read(tmp_path)


def make_domains(folder, counts=(30, 70)):
  for name, count, first in zip(('in', 'out'), counts, (0, 100), strict=True):
    for i in range(count):
      save(folder / name / f'{name}{i}.png', first + i)
  save(folder / 'third' / '1.png', 255)


def test_domains_are_used_whole_and_parted_each_by_itself(tmp_path):
  make_domains(tmp_path)
  found = read(tmp_path, None, domains='in/out')
  assert (found.input_channels, found.is_unpaired) == (1, True)
  train, test = values(found.train_images), values(found.test_images)
  used = [
    {row[side] for row in rows} for rows in (train, test) for side in (0, 1)
  ]
  assert used[0] | used[2] == set(range(30))
  assert used[1] | used[3] == set(range(100, 170))
  assert not used[0] & used[2]
  assert not used[1] & used[3]
  # The larger folder once, the smaller one evenly.
  assert len(train) == len(used[1])
  counts = np.unique([row[0] for row in train], return_counts=True)[1]
  assert counts.max() - counts.min() <= 1
  assert found.class_names == ()


def test_domains_keep_to_a_split(tmp_path):
  for part, counts in (('train', (3, 5)), ('test', (4, 2))):
    make_domains(tmp_path / part, counts)
  found = read(tmp_path, None, domains='in/out')
  train, test = values(found.train_images), values(found.test_images)
  assert {row[0] for row in train} == {0, 1, 2}
  assert sorted(row[1] for row in train) == [100, 101, 102, 103, 104]
  assert sorted(row[0] for row in test) == [0, 1, 2, 3]
  assert {row[1] for row in test} == {100, 101}


def test_domains_that_cannot_be_used(tmp_path):
  make_domains(tmp_path)
  with pytest.raises(UserError, match="no folder 'inn'.*did you mean"):
    read(tmp_path, None, domains='inn/out')
  make_domains(tmp_path / 'split' / 'train', (3, 3))
  make_domains(tmp_path / 'split' / 'test', (3, 0))
  with pytest.raises(UserError, match="no picture in 'out' to hold out"):
    read(tmp_path / 'split', None, domains='in/out')


def test_each_picture_of_a_domain_is_there_once(tmp_path):
  make_domains(tmp_path, (30, 70))
  found = read(tmp_path, None, domains='in/out')
  sides = [
    getattr(found, f'{part}_{side}')[:, 0, 0, 0].tolist()
    for part in ('train', 'test')
    for side in ('inputs', 'targets')
  ]
  for side in sides:
    assert len(side) == len({*side})
  assert sorted(sides[0] + sides[2]) == list(range(30))
  assert sorted(sides[1] + sides[3]) == list(range(100, 170))
  assert found.domains == tuple(map(len, sides))


def test_photographs_paired_with_flat_pictures_are_smoothed(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(6):
    photo = rng.integers(0, 256, (24, 24), np.uint8)
    for name, pixels in (('in', photo), ('out', photo // 200 * 100)):
      path = tmp_path / name / f'{i}.png'
      path.parent.mkdir(exist_ok=True)
      Image.fromarray(pixels).save(path)
  found = read(tmp_path)
  assert not found.pixel_art
  smooth = read(tmp_path, pixel_art=False)
  np.testing.assert_array_equal(found.train_images, smooth.train_images)


def test_two_pictures_of_one_name_are_no_pair(tmp_path):
  make(tmp_path)
  save(tmp_path / 'in' / '7.bmp', 200)
  with pytest.raises(UserError, match="two pictures in 'in' are called '7'"):
    read(tmp_path)
