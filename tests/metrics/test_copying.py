"""Copies are found, and new images are not taken for them."""

import numpy as np
import pytest

from qgan_jax.metrics import copying


def features(n, seed, d=4):
  return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def by_definition(train, held_out, fake, k):
  def distances(x):
    return np.linalg.norm(np.float64(x)[:, None] - np.float64(train), axis=-1)

  mine, new = distances(fake), distances(held_out).min(1)
  pairs = [
    (a < b) + (a == b) / 2 for a in mine.min(1) for b in new
  ]  # fmt: skip
  order = np.argsort(mine, axis=1)[:, :k]
  return order, np.take_along_axis(mine, order, 1), np.mean(pairs)


@pytest.mark.parametrize('shift', [0.0, 0.7, 3.0])
def test_it_is_the_definition(shift):
  train, new = features(50, 0), features(20, 1)
  fake = features(30, 2) + shift
  found = copying(train, new, fake, k=3)
  nearest, distances, share = by_definition(train, new, fake, 3)
  np.testing.assert_array_equal(found.nearest, nearest)
  np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
  assert found.data_copying == pytest.approx(share)


def test_copies_new_images_and_noise_are_told_apart():
  train, new = features(2000, 0), features(500, 1)
  copies = train[:300] + 1e-3 * features(300, 2)
  assert copying(train, new, copies, k=1).data_copying == 1
  assert abs(copying(train, new, features(500, 3), k=1).data_copying - 0.5) < (
    0.06
  )
  noise = 4 * features(500, 4)
  assert copying(train, new, noise, k=1).data_copying < 0.1
  # Held-out images that are the training images: nothing is nearer.
  assert copying(train, train, train[:9], k=1).data_copying == 0.5
