"""Scores of pairs against their definitions, pixel by pixel."""

import numpy as np
import pytest

from qgan_jax.metrics import similarity


def images(seed, shape=(3, 14, 13, 2)):
  return np.random.RandomState(seed).randint(0, 256, shape).astype('uint8')


def ssim_by_definition(x, y):
  """Equation 13 of Wang et al. 2004, with an 11×11 window at every place."""
  line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
  weights = np.outer(line, line)
  weights /= weights.sum()
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  found = []
  height, width, channels = x.shape
  for i, j, c in np.ndindex(height - 10, width - 10, channels):
    a, b = (v[i : i + 11, j : j + 11, c].astype(float) for v in (x, y))
    mean_a, mean_b = (np.sum(weights * v) for v in (a, b))
    var_a = np.sum(weights * (a - mean_a) ** 2)
    var_b = np.sum(weights * (b - mean_b) ** 2)
    cov = np.sum(weights * (a - mean_a) * (b - mean_b))
    found.append(
      (2 * mean_a * mean_b + c1) * (2 * cov + c2)
      / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )  # fmt: skip
  return np.mean(found)


def test_scores_are_their_definitions():
  x, y = images(0), images(1)
  y[1] = x[1] // 2 + 40  # One that is like its target.
  found = similarity(x, y)
  off = x.astype(float) - y
  np.testing.assert_allclose(found['l1'], np.abs(off).mean() / 255)
  peaks = [10 * np.log10(255**2 / np.mean(d**2)) for d in off]
  np.testing.assert_allclose(found['psnr'], np.mean(peaks))
  expected = [ssim_by_definition(a, b) for a, b in zip(x, y, strict=True)]
  np.testing.assert_allclose(found['ssim'], np.mean(expected), rtol=1e-9)
  assert expected[1] > 0.7 > 0.2 > expected[0]


def test_equal_images_have_finite_scores():
  x = images(0)
  found = similarity(x, x)
  assert found['l1'] == 0
  assert found['ssim'] == pytest.approx(1)
  one_off = x.copy()
  one_off[:, 0, 0, 0] ^= 1
  assert similarity(x, one_off)['psnr'] == pytest.approx(found['psnr'])


@pytest.mark.parametrize('shape', [(8, 20), (2, 1)])
def test_small_images_are_seen_through_a_smaller_window(shape):
  x, y = images(0, (3, *shape, 1)), images(1, (3, *shape, 1))
  assert similarity(x, x)['ssim'] == pytest.approx(1)
  assert similarity(x, y)['ssim'] < 0.9
