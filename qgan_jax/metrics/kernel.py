"""Kernel distances: KID, and its counterpart for other features."""

import numpy as np


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
  """Sum of (x·y + 1)³ over all pairs of rows."""
  k = x @ y.T
  k += 1
  return float(np.vdot(k * k, k))


def _unbiased_mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased squared MMD: Gretton et al. (2012), equation 3, for N = M."""
  n = len(x)
  within = 0.0
  for z in (x, y):
    itself = (np.einsum('nd,nd->n', z, z) + 1) ** 3
    within += _kernel_sum(z, z) - itself.sum()
  return within / (n * (n - 1)) - 2 * _kernel_sum(x, y) / n**2


def _over_subsets(
  real: np.ndarray,
  fake: np.ndarray,
  unit: float,
  num_subsets: int,
  subset_size: int,
  seed: int,
) -> tuple[float, float | None]:
  """Mean and deviation of the squared MMD of features in units of `unit`."""
  real, fake = real / unit, fake / unit
  size = min(subset_size, len(real), len(fake))
  rng = np.random.default_rng(seed)
  values = [
    _unbiased_mmd2(
      real[rng.choice(len(real), size, replace=False)],
      fake[rng.choice(len(fake), size, replace=False)],
    )
    for _ in range(num_subsets)
  ]
  whole = size in (len(real), len(fake))
  return float(np.mean(values)), None if whole else float(np.std(values))


def kid(
  real: np.ndarray,
  fake: np.ndarray,
  *,
  num_subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 0,
) -> tuple[float, float | None]:
  """Unbiased squared MMD with the kernel (x·y / D + 1)³, over random subsets.

  Args:
    real: Inception features of the reference images, `[N, D]`, N ≥ 2.
    fake: Those of the generated images, `[M, D]`, M ≥ 2.
    num_subsets: How many pairs of subsets are drawn.
    subset_size: Images in each subset, drawn without replacement; limited to
      min(N, M).
    seed: Seed of the draws.

  Returns:
    Mean and standard deviation over the subsets. The mean is an unbiased
    estimate, so it can be slightly negative. The deviation is None if a subset
    contains all N or all M images, since it would miss the variation of that
    set.

  Source: Bińkowski et al. (1801.01401), section 4.
  """
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  unit = real.shape[1] ** 0.5
  return _over_subsets(real, fake, unit, num_subsets, subset_size, seed)


def kernel_distance(
  real: np.ndarray,
  fake: np.ndarray,
  *,
  num_subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 0,
) -> tuple[float, float | None]:
  """Like `kid` with the kernel (x·y / mean‖real‖² + 1)³, for any features.

  KID's division by D assumes features near 1, as Inception's are. With larger
  features the cubic term dominates the kernel, so that a few long features
  decide; with smaller ones only the means are compared. Here features are
  scaled so that the mean of x·x over the reference images is 1, whatever their
  unit. The scale does not depend on the generated images, so that these cannot
  change the kernel that they are compared with.

  Args:
    real: Features of the reference images, `[N, D]`, N ≥ 2, not all 0.
    fake: Those of the generated images, `[M, D]`, M ≥ 2.
    num_subsets: As for `kid`.
    subset_size: As for `kid`.
    seed: As for `kid`.

  Returns:
    Mean and standard deviation over the subsets, as in `kid`.
  """
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  unit = float(np.mean(np.einsum('nd,nd->n', real, real)) ** 0.5)
  return _over_subsets(real, fake, unit, num_subsets, subset_size, seed)
