"""Kernel distances against their definition, KID against torch-fidelity."""

import numpy as np
import pytest

from qgan_jax.metrics.kernel import kernel_distance, kid


def _features(n, seed, shift=0.0):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=(n, 8)) + shift).astype(np.float32)


@pytest.mark.parametrize('distance', [kid, kernel_distance])
def test_equals_the_definition_by_loops(distance):
  x, y = _features(7, 0), _features(7, 1, 0.5)
  lengths = [float(np.dot(a.astype(np.float64), a)) for a in x]
  divisor = {kid: 8, kernel_distance: sum(lengths) / 7}[distance]

  def k(a, b):
    return (float(np.dot(a.astype(np.float64), b)) / divisor + 1) ** 3

  n = range(7)
  within = sum(
    k(z[i], z[j]) for z in (x, y) for i in n for j in n if i != j
  ) / (7 * 6)
  across = sum(k(a, b) for a in x for b in y) / 49
  mean, _ = distance(x, y, num_subsets=3, subset_size=1000)
  np.testing.assert_allclose(mean, within - 2 * across, rtol=1e-6)


def test_no_deviation_where_a_subset_is_a_whole_set():
  x, y = _features(30, 0), _features(40, 1)
  assert kid(x, y)[1] is kid(y, x)[1] is kid(x, y, subset_size=30)[1] is None
  assert kid(x, y, subset_size=29)[1] > 0


def test_the_unit_of_features_is_no_matter_of_the_kernel_distance():
  x, y = _features(50, 0, 1.0), _features(60, 1, 1.1)
  expected = kernel_distance(x, y, subset_size=20)
  for unit in (1e-3, 40.0):
    scaled = kernel_distance(unit * x, unit * y, subset_size=20)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4)
  # The reference alone says what the unit is: worse fakes do not excuse it.
  near, far = (kernel_distance(x, s * y)[0] for s in (2, 4))
  assert far > 4 * near


def test_is_unbiased_and_sees_a_shift():
  means = [
    kid(_features(60, 2 * i), _features(60, 2 * i + 1), num_subsets=1)[0]
    for i in range(200)
  ]
  error = np.std(means) / len(means) ** 0.5
  assert abs(np.mean(means)) < 4 * error  # the biased estimate is 10 errors off
  assert kid(_features(60, 0), _features(60, 1, 1.0))[0] > 20 * error


def test_subsets_follow_the_seed():
  x, y = _features(50, 0), _features(60, 1)
  first = kid(x, y, subset_size=20, seed=1)
  assert first == kid(x, y, subset_size=20, seed=1)
  assert first != kid(x, y, subset_size=20, seed=2)
  assert first[1] > 0


@pytest.mark.peers
def test_equals_torch_fidelity(torch_fidelity):
  torch = pytest.importorskip('torch')
  peer = torch_fidelity('metric_kid')
  x, y = _features(200, 0), _features(200, 1, 0.3)
  expected = peer.kid_features_to_metric(
    torch.from_numpy(x).double(),
    torch.from_numpy(y).double(),
    kid_subsets=1,
    kid_subset_size=200,
    verbose=False,
  )
  np.testing.assert_allclose(
    kid(x, y, num_subsets=1)[0], expected[peer.KEY_METRIC_KID_MEAN], rtol=1e-9
  )
