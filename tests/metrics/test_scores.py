"""What a set of scores is called, and what it is made of."""

import numpy as np
import pytest

from qgan_jax.metrics import (
  Extractor,
  Features,
  kernel_distance,
  kid,
  neighbour_scores,
  score_features,
)
from qgan_jax.metrics import scores as scores_lib
from qgan_jax.metrics.inception import NAME as INCEPTION


def _features(n, seed):
  x = np.random.default_rng(seed).normal(1, 1, (n, 6))
  return Features(x.astype(np.float32), None)


def _extractor(name):
  return Extractor(
    name, 'f' * 12, 'none', '[0, 1]', None, lambda images: images
  )


@pytest.mark.parametrize(
  ('name', 'kernel', 'prefix', 'other'),
  [
    (INCEPTION, kid, 'kid', 'kernel_distance'),
    ('classifier-x', kernel_distance, 'kernel_distance', 'kid'),
  ],
)
def test_kid_is_of_inception_alone(name, kernel, prefix, other):
  real, fake = _features(60, 0), _features(50, 1)
  scores = score_features(_extractor(name), real, fake, seed=3)
  mean, _ = kernel(real.features, fake.features, seed=3)
  assert scores[f'{prefix}_mean'] == mean
  assert scores[f'{prefix}_std'] is None  # each subset is all 50
  assert not any(key.startswith(other) for key in scores)


@pytest.mark.parametrize('num_real', [40, 400])
def test_as_many_fakes_as_real_ones_have_neighbours(num_real, monkeypatch):
  compared = []

  def record(*sets):
    compared.append([{tuple(row) for row in x} for x in sets])
    return neighbour_scores(*sets)

  monkeypatch.setattr(scores_lib, 'neighbour_scores', record)
  sets = _features(num_real, 0), _features(120, 1)
  first, again, other = (
    score_features(_extractor('x'), *sets, seed=seed) for seed in (0, 0, 1)
  )
  count = min(num_real, 120)
  assert first['num_neighbours'] == count
  assert (first['num_real'], first['num_fake']) == (num_real, 120)
  for chosen, given in zip(compared[0], sets, strict=True):
    assert len(chosen) == count
    assert chosen <= {tuple(row) for row in given.features}
  assert again == first
  assert compared[0] == compared[1] != compared[2]
  assert other['num_neighbours'] == count


def test_of_a_set_in_order_every_part_is_chosen():
  # Ten far groups, one after the other, and a fake for each but the last.
  centres = 100 * np.arange(10.0)[:, None]
  noise = np.random.default_rng(0).normal(size=(1000, 1))
  real = np.repeat(centres, 100, 0) + noise
  fake = np.tile(centres[:9], (10, 1)) + noise[:90]
  scores = score_features(
    _extractor('x'), Features(real, None), Features(fake, None)
  )
  assert 0.8 < scores['recall'] < 1
  assert scores['precision'] == pytest.approx(1, abs=0.1)
