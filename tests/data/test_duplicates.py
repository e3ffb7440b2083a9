import io

import numpy as np
from PIL import Image
import pytest

from qgan_jax.data import duplicates
from qgan_jax.data.duplicates import near_duplicates


def smooth(count, seed, shape=(24, 40)):
  """Pictures of large soft parts, as photographs are."""
  rng = np.random.default_rng(seed)
  small = rng.integers(60, 200, (count, 4, 4, 3), np.uint8)
  large = (
    Image.fromarray(x).resize(shape[::-1], Image.Resampling.BICUBIC)
    for x in small
  )
  return np.stack([np.asarray(x) for x in large])


def as_jpeg(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=85)
  return np.asarray(Image.open(file))


def by_hand(train, test):
  """Every pair, part by part, in float64."""

  def parts(image):
    edges = [np.linspace(0, n, 9).astype(int) for n in image.shape[:2]]
    return np.array(
      [
        image[a:b, c:d].astype(float).mean((0, 1))
        for a, b in zip(edges[0], edges[0][1:], strict=False)
        for c, d in zip(edges[1], edges[1][1:], strict=False)
      ]
    )

  ours, theirs = [parts(x) for x in train], [parts(x) for x in test]
  return sum(any(np.abs(a - b).max() <= 8 for a in ours) for b in theirs)


def test_copies_in_other_files_are_found():
  train, others = smooth(20, 0), smooth(30, 1)
  copies = np.stack([as_jpeg(x) for x in train[:7]])
  assert (copies != train[:7]).any()
  assert near_duplicates(train, np.concatenate([others, copies])) == 7
  assert near_duplicates(train, others) == 0


@pytest.mark.parametrize('chunk', [1, 3, 256])
def test_it_counts_what_the_definition_says(chunk, monkeypatch):
  monkeypatch.setattr(duplicates, '_CHUNK', chunk)
  rng = np.random.default_rng(2)
  train = smooth(12, 3)
  moved = train.astype(int) + rng.integers(-9, 10, train.shape)
  shifts = np.arange(12)[:, None, None, None] - 2
  test = np.clip(moved + shifts, 0, 255).astype(np.uint8)
  expected = by_hand(train, test)
  assert 2 < expected < 11
  assert near_duplicates(train, test) == expected


def test_one_is_counted_once():
  train = np.repeat(smooth(1, 0), 5, 0)
  assert near_duplicates(train, train[:2]) == 2
