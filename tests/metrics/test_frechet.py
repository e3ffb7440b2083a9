"""The Fréchet distance against closed forms, SciPy and torch-fidelity."""

import numpy as np
import pytest
import scipy.linalg

from qgan_jax.metrics.frechet import frechet_distance


def _features(n, d, seed, scale=1.0):
  rng = np.random.default_rng(seed)
  mix = rng.normal(size=(d, d)) / d**0.5
  return scale * (rng.normal(size=(n, d)) @ mix).astype(np.float32)


def _with_moments(mean, cov, n, seed=0):
  """Samples whose empirical mean and covariance are exactly as asked."""
  x = np.random.default_rng(seed).normal(size=(n, len(mean)))
  x -= x.mean(0)
  white = np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)))
  return x @ white.T @ np.linalg.cholesky(cov).T + mean


def test_equals_the_closed_form_for_gaussians():
  d, s = 6, 2.25
  mean = np.linspace(-1, 2, d)
  real = _with_moments(np.zeros(d), np.eye(d), 50)
  fake = _with_moments(mean, s * np.eye(d), 70, seed=1)
  expected = mean @ mean + d * (1 - s**0.5) ** 2
  np.testing.assert_allclose(frechet_distance(real, fake), expected, rtol=1e-9)


def test_equals_the_definition_with_a_matrix_square_root():
  real, fake = _features(300, 16, 0), _features(200, 16, 1, 1.3) + 0.2
  a, b = (np.cov(x.astype(np.float64), rowvar=False) for x in (real, fake))
  shift = real.mean(0, dtype=np.float64) - fake.mean(0, dtype=np.float64)
  root = scipy.linalg.sqrtm(a @ b).real
  expected = shift @ shift + np.trace(a + b - 2 * root)
  np.testing.assert_allclose(frechet_distance(real, fake), expected, rtol=1e-8)


@pytest.mark.parametrize('n', [500, 20], ids=['n>d', 'n<d'])
def test_is_a_distance(n):
  real, fake = _features(n, 48, 0), _features(n, 48, 1) + 0.1
  assert 0 <= frechet_distance(real, real) < 1e-5
  forward = frechet_distance(real, fake)
  assert forward > 0.1
  np.testing.assert_allclose(frechet_distance(fake, real), forward, rtol=1e-5)


@pytest.mark.peers
def test_equals_torch_fidelity(torch_fidelity):
  torch = pytest.importorskip('torch')
  peer = torch_fidelity('metric_fid')
  real, fake = _features(600, 64, 0), _features(500, 64, 1) + 0.1
  statistics = [
    peer.fid_features_to_statistics(torch.from_numpy(x).double())
    for x in (real, fake)
  ]
  expected = peer.fid_statistics_to_metric(*statistics, verbose=False)
  np.testing.assert_allclose(
    frechet_distance(real, fake), expected[peer.KEY_METRIC_FID], rtol=1e-7
  )
