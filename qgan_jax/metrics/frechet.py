"""The Fréchet distance between two sets of features."""

import numpy as np


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
  r"""Squared Fréchet distance between Gaussians fitted to two feature sets.

  .. math::
    \|\mu_1 - \mu_2\|^2 + \mathrm{Tr}(\Sigma_1 + \Sigma_2)
    - 2\,\mathrm{Tr}\,(\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2}

  It is the FID only with the features of Inception-2015-12-05.

  Args:
    real: Features of the reference images, `[N, D]`, N ≥ 2.
    fake: Features of the generated images, `[M, D]`, M ≥ 2.

  Returns:
    The distance, at least 0, in squared units of the features. It is biased
    upwards by about 1/N + 1/M, so compare only scores of equal N and M.

  Source: Heusel et al. (1706.08500), section 4; Dowson and Landau (1982).
  """
  # float64: float32 is off by 0.1 where there are fewer images than features.
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  shift = real.mean(0) - fake.mean(0)
  real_cov, fake_cov = (
    np.atleast_2d(np.cov(features, rowvar=False)) for features in (real, fake)
  )
  # The symmetric form keeps every eigenvalue real; `sqrtm` of the plain
  # product returns complex numbers for singular covariances.
  values, vectors = np.linalg.eigh(real_cov)
  root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
  overlap = np.linalg.eigvalsh(root @ fake_cov @ root).clip(0)
  distance = (
    shift @ shift
    + np.trace(real_cov)
    + np.trace(fake_cov)
    - 2 * np.sqrt(overlap).sum()
  )
  return max(float(distance), 0.0)
