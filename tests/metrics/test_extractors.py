import numpy as np

from qgan_jax.metrics.extractors import over_grey


def test_transparent_images_lie_over_grey():
  rng = np.random.default_rng(0)
  file = rng.integers(0, 256, (3, 5, 5, 4), np.uint8).astype(float)
  alpha = file[..., 3:] / 255
  images = np.round(np.concatenate([file[..., :3] * alpha, 255 * alpha], -1))
  expected = file[..., :3] * alpha + 128 * (1 - alpha)
  got = over_grey(images.astype(np.uint8))
  assert got.dtype == np.uint8
  assert np.abs(got - expected).max() <= 1


def test_brighter_than_alpha_is_white_at_most():
  assert over_grey(np.full((1, 1, 1, 4), 200, np.uint8)).max() == 228
  image = np.array([[[[255, 255, 0, 0]]]], np.uint8)
  assert over_grey(image).tolist() == [[[[255, 255, 128]]]]


def test_opaque_images_stay():
  images = np.zeros((1, 2, 2, 3), np.uint8)
  assert over_grey(images) is images
