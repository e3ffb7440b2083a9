"""Precision, recall, density and coverage against brute force and `prdc`."""

import numpy as np
import pytest

from qgan_jax.metrics import neighbours
from qgan_jax.metrics.neighbours import neighbour_scores


def _features(n, seed, shift=0.0, d=5):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(n, d)) + shift).astype(np.float32)


def _brute_force(real, fake, k):
  def distances(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.linalg.norm(x[:, None] - y[None], axis=-1)

  def radii(x):
    d = distances(x, x)
    np.fill_diagonal(d, np.inf)
    return np.sort(d, axis=1)[:, k - 1]

  d = distances(real, fake)
  in_real, in_fake = d <= radii(real)[:, None], d <= radii(fake)[None]
  return (
    in_real.any(0).mean(),
    in_fake.any(1).mean(),
    in_real.sum() / (k * len(fake)),
    in_real.any(1).mean(),
  )


def _all(real, fake, k):
  return neighbour_scores(real, fake, k_precision=k, k_density=k)


@pytest.mark.parametrize('k', [1, 3, 5])
@pytest.mark.parametrize('offset', [0.0, 1000.0])
def test_equals_brute_force_in_any_chunks(monkeypatch, k, offset):
  real, fake = _features(90, 0, offset), _features(70, 1, offset + 0.7)
  expected = _brute_force(real, fake, k)
  assert 0.05 < min(expected[:2]) < 0.95
  for elements in (1, 1000, 2**20):
    monkeypatch.setattr(neighbours, '_CHUNK_ELEMENTS', elements)
    np.testing.assert_allclose(_all(real, fake, k), expected, rtol=1e-12)


def test_each_pair_of_scores_has_its_own_k():
  real, fake = _features(90, 0), _features(70, 1, 0.7)
  np.testing.assert_allclose(
    neighbour_scores(real, fake),
    _brute_force(real, fake, 3)[:2] + _brute_force(real, fake, 5)[2:],
    rtol=1e-12,
  )


@pytest.mark.parametrize('d', [4, 2048])
def test_duplicates_are_at_distance_zero(d):
  # More copies than neighbours: every radius of a collapsed set is 0.
  one = _features(1, 0, 100.0, d)
  real = np.concatenate([np.repeat(one, 20, 0), _features(20, 1, 100.0, d)])
  copied, off = np.repeat(one, 30, 0), np.repeat(one + 0.01, 30, 0)
  scores = neighbour_scores(real, copied)
  assert scores[:2] == (1.0, 0.5)
  assert scores.coverage >= 0.5
  # A generator that collapsed right beside real images covers none of them.
  assert neighbour_scores(np.repeat(one, 40, 0), off) == (0, 0, 0, 0)


def test_many_groups_of_duplicates():
  # Every radius is 0, and rounding must not put a copy outside its own group.
  groups = _features(60, 0, 10.0, 2048)
  real, fake = np.repeat(groups, 8, 0), np.tile(groups, (7, 1))
  precision, recall, density, coverage = neighbour_scores(real, fake)
  assert precision == recall == coverage == 1.0
  np.testing.assert_allclose(density, 8 / 5)  # 8 balls hold each image, k = 5


def test_balls_are_closed():
  real = np.arange(10.0)[:, None]  # every ball has radius 1
  fake = np.array([[-1.0], [10.0], [-2.0], [12.0]])
  precision, _, density, coverage = _all(real, fake, 1)
  assert (precision, density, coverage) == (0.5, 0.5, 0.2)


def test_copies_are_perfect_and_strangers_are_not():
  real = _features(100, 0)
  precision, recall, _, coverage = neighbour_scores(real, real[::-1])
  assert precision == recall == coverage == 1.0
  assert _all(real, real + 100, 3) == (0.0, 0.0, 0.0, 0.0)
  collapsed = _features(100, 1) * 0.01
  precision, recall, *_ = neighbour_scores(real, collapsed)
  assert precision == 1.0
  assert recall < 0.1


@pytest.mark.parametrize('k', [3, 5])
def test_equals_prdc(k):
  prdc = pytest.importorskip('prdc')
  real, fake = _features(200, 0), _features(150, 1, 0.5)
  expected = prdc.compute_prdc(real, fake, nearest_k=k)
  names = ('precision', 'recall', 'density', 'coverage')
  np.testing.assert_allclose(
    _all(real, fake, k), [expected[name] for name in names], rtol=1e-9
  )
