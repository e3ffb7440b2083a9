"""Scores that mean nothing say so."""

import math

import numpy as np
import pytest

from qgan_jax import records
from qgan_jax.metrics import copying, Extractor, Features, score_features


@pytest.mark.parametrize(
  ('real', 'fake', 'kind'),
  [
    (128, 10_000, 'held-out'),
    (129, 10_000, ''),
    (10_000, 128, 'generated'),
    (100, 50, 'generated'),
  ],
)
def test_more_images_than_features_are_needed(real, fake, kind):
  said = records.too_few(real, fake, 128)
  assert bool(said) == bool(kind)
  assert said.startswith(f'{min(real, fake)} {kind}' if kind else '')


def test_of_so_few_the_covariance_has_no_full_rank():
  """The criterion is the number of images at which it may have."""
  points = np.random.default_rng(0).normal(size=(9, 8))
  for count in (8, 9):
    rank = np.linalg.matrix_rank(np.cov(points[:count], rowvar=False))
    assert (rank < 8) == bool(records.too_few(count, 100, 8))


@pytest.mark.parametrize(
  ('coverage', 'learned'),
  [(0.0, False), (0.049, False), (0.05, True), (None, True), (math.nan, True)],
)
def test_what_covers_nothing_has_not_learned(coverage, learned):
  assert records.has_learned(coverage) == learned
  scores = {'num_real': 300, 'num_fake': 300, 'coverage': coverage}
  assert bool(records.caveats(scores)) != learned


@pytest.mark.parametrize(('copies', 'said'), [(1, True), (0.3, False)])
def test_who_copies_more_than_half_is_told(copies, said):
  rng = np.random.default_rng(0)
  train, new, drawn = rng.normal(size=(3, 2000, 4))
  count = int(copies * len(drawn))
  drawn[:count] = train[:count]
  found = copying(train, new, drawn, k=1).data_copying
  # Copies are nearer than any new image, and the others as often as not.
  assert found == pytest.approx(copies + (1 - copies) / 2, abs=0.02)
  scores = {'num_real': 2000, 'num_fake': 2000, 'data_copying': found}
  assert bool(records.caveats(scores)) == said


def test_what_metrics_give_can_be_judged():
  rng = np.random.default_rng(0)
  real = Features(rng.normal(size=(40, 6)), None)
  noise = Features(rng.normal(100, 1, (40, 6)), None)
  extractor = Extractor('x', 'f' * 12, 'none', '[0, 1]', None, lambda x: x)
  same = Features(rng.normal(size=(40, 6)), None)
  assert records.caveats(score_features(extractor, real, same)) == []
  (said,) = records.caveats(score_features(extractor, real, noise))
  assert 'coverage is 0.000' in said
  few = Features(real.features[:6].repeat(2, 0)[:11], None)
  wide = Features(np.hstack([few.features] * 2), None)
  found = records.caveats(score_features(extractor, wide, wide))
  assert any('11 held-out images' in line for line in found)


@pytest.mark.parametrize(('name', 'few'), [('fid', True), ('other', False)])
def test_scores_of_earlier_versions_had_two_extractors(name, few):
  """Inception has 2,048 features, and the classifier 128."""
  scores = {name: 1.0, 'num_real': 1000, 'num_fake': 5000, 'coverage': 0.9}
  assert bool(records.caveats(scores)) == few
