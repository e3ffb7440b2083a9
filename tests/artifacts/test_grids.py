import numpy as np
from PIL import Image
import pytest

from qgan_jax.artifacts import grids
from qgan_jax.errors import UserError


def test_to_uint8():
  images = np.array([-1.5, -1, -1 + 1.1 / 127.5, 0, 1, 2], np.float32)
  assert grids.to_uint8(images).tolist() == [0, 0, 1, 128, 255, 255]
  every = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(grids.to_uint8(every / 127.5 - 1), every)


@pytest.mark.parametrize('channels', [1, 3])
def test_grid_holds_every_image_once_in_rows(tmp_path, channels):
  rng = np.random.default_rng(0)
  images = rng.integers(1, 256, (7, 4, 5, channels), np.uint8)
  grids.save_grid(tmp_path / 'grid.png', images, description='4 × 5')
  with Image.open(tmp_path / 'grid.png') as file:
    grid = np.asarray(file).reshape(file.height, file.width, channels)
    assert file.text['Description'] == '4 × 5'
  assert grid.shape[:2] == grids.grid_shape(7, 4, 5) == (20, 23)
  for i, image in enumerate(images):
    top, left = 2 + 6 * (i // 3), 2 + 7 * (i % 3)
    np.testing.assert_array_equal(grid[top : top + 4, left : left + 5], image)
  assert grid.sum() == images.sum()  # Everything else is black.


def test_a_grid_of_what_is_transparent_lies_over_a_checkerboard():
  images = np.zeros((1, 8, 8, 4), np.uint8)
  images[0, 0] = [10, 20, 30, 255]
  images[0, 1] = [51, 0, 0, 51]
  canvas = grids.grid(images)
  assert canvas.shape == (12, 12, 3)
  image = canvas[2:-2, 2:-2]
  assert (image[0] == [10, 20, 30]).all()
  # A fifth of it is red: the rest is that of the board.
  assert image[1, 0].tolist() == [133, 82, 82]
  assert image[1, 4].tolist() == [173, 122, 122]
  assert image[2, [0, 3, 4, 7], 0].tolist() == [102, 102, 153, 153]
  assert image[4, [0, 3, 4, 7], 0].tolist() == [153, 153, 102, 102]


def test_a_png_has_the_colours_that_were_multiplied_by_alpha(tmp_path):
  rng = np.random.default_rng(1)
  file = rng.integers(0, 256, (9, 9, 4), np.uint8)
  file[0, 0, 3] = 0
  drawn = np.round(file[..., :3] * (file[..., 3:] / 255)).astype(np.uint8)
  drawn = np.concatenate([drawn, file[..., 3:]], -1)
  with open(tmp_path / 'a.png', 'wb') as stream:
    grids.save_png(stream, drawn)
  with Image.open(tmp_path / 'a.png') as picture:
    assert picture.mode == 'RGBA'
    got = np.asarray(picture).astype(float)
  np.testing.assert_array_equal(got[..., 3], file[..., 3])
  again = got[..., :3] * got[..., 3:] / 255
  assert np.abs(again - drawn[..., :3]).max() <= 0.5
  # More than its alpha is as bright as can be.
  bright = np.array([[[200, 50, 0, 100]]], np.uint8)
  assert grids.straight(bright).tolist() == [[[255, 128, 0, 100]]]


def test_a_failed_grid_leaves_the_old_one(tmp_path):
  path = tmp_path / 'grid.png'
  grids.save_grid(path, np.zeros((1, 4, 4, 1), np.uint8))
  old = path.read_bytes()
  with pytest.raises(ValueError, match='channels'):
    grids.save_grid(path, np.zeros((1, 4, 4, 2), np.uint8))
  assert path.read_bytes() == old
  assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_a_user_error(tmp_path):
  with pytest.raises(UserError, match='cannot write'):
    grids.save_grid(tmp_path / 'no' / 'g.png', np.zeros((1, 4, 4, 1), np.uint8))
