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
