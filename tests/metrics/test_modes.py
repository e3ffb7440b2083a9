"""Class histograms, inception score and effective rank."""

import numpy as np
import pytest

from qgan_jax.metrics import modes


def _probabilities(n, k, seed=0):
  return np.random.default_rng(seed).dirichlet(np.ones(k), n)


def test_histogram_coverage_and_kl():
  probabilities = np.eye(4, dtype=np.float32)[[0, 0, 2, 0]]
  histogram = modes.mode_histogram(probabilities)
  np.testing.assert_array_equal(histogram, [3, 0, 1, 0])
  reference = np.array([2, 2, 0, 4])
  assert modes.modes_covered(histogram, reference) == 1
  q = np.array([2, 2, 1, 4]) / 9
  expected = 0.75 * np.log(0.75 / q[0]) + 0.25 * np.log(0.25 / q[2])
  np.testing.assert_allclose(
    modes.kl_to_reference(histogram, reference), expected
  )


def test_kl_of_a_collapse_is_log_of_the_number_of_modes():
  reference = np.full(10, 1000)
  assert modes.kl_to_reference(reference, reference) == 0
  np.testing.assert_allclose(
    modes.kl_to_reference(np.eye(10, dtype=int)[3] * 50, reference), np.log(10)
  )


@pytest.mark.parametrize(
  'probabilities, expected',
  [
    (np.tile(np.eye(5, dtype=np.float32), (200, 1)), 5),
    (np.full((100, 5), 0.2), 1),
    (np.tile([1.0, 0, 0], (50, 1)), 1),
  ],
  ids=['sure and diverse', 'unsure', 'collapsed'],
)
def test_inception_score_at_its_bounds(probabilities, expected):
  mean, _ = modes.inception_score(probabilities, num_splits=1)
  np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_inception_score_equals_its_definition():
  p = _probabilities(103, 7)
  order = np.random.default_rng(5).permutation(103)
  scores = []
  for part in np.array_split(p[order], 10):
    kl = [np.sum(q * np.log(q / part.mean(0))) for q in part]
    scores.append(np.exp(np.mean(kl)))
  np.testing.assert_allclose(
    modes.inception_score(p, seed=5), (np.mean(scores), np.std(scores))
  )


def test_effective_rank_equals_its_definition():
  x = np.random.default_rng(0).normal(size=(60, 9)) * np.arange(1, 10)
  p = np.linalg.svd(x, compute_uv=False)
  p /= p.sum()
  expected = np.exp(-np.sum(p * np.log(p)))
  np.testing.assert_allclose(modes.effective_rank(x), expected, rtol=1e-9)


@pytest.mark.parametrize('rank', [1, 3, 8])
def test_effective_rank_of_equal_directions_is_their_number(rank):
  x = np.eye(8)[:rank].repeat(10, 0)
  np.testing.assert_allclose(modes.effective_rank(x), rank, rtol=1e-5)


def test_effective_rank_of_nothing():
  assert modes.effective_rank(np.zeros((20, 8))) == 0


@pytest.mark.peers
def test_inception_score_equals_torch_fidelity(torch_fidelity):
  torch = pytest.importorskip('torch')
  peer = torch_fidelity('metric_isc')
  p = _probabilities(200, 7)
  order = np.random.default_rng(0).permutation(200)
  logits = torch.from_numpy(np.log(p[order]))
  expected = peer.isc_features_to_metric(logits, shuffle=False)
  np.testing.assert_allclose(
    modes.inception_score(p),
    (
      expected[peer.KEY_METRIC_ISC_MEAN],
      expected[peer.KEY_METRIC_ISC_STD],
    ),
    rtol=1e-9,
  )
