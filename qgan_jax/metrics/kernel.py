"""The kernel distance (KID with Inception features)."""

import numpy as np


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
  """Sum of (x·y / D + 1)³ over all pairs of rows."""
  k = (x / x.shape[1]) @ y.T
  k += 1
  return float(np.vdot(k * k, k))


def _unbiased_mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased squared MMD: Gretton et al. (2012), equation 3, for N = M."""
  n = len(x)
  within = 0.0
  for z in (x, y):
    itself = (np.einsum('nd,nd->n', z, z) / z.shape[1] + 1) ** 3
    within += _kernel_sum(z, z) - itself.sum()
  return within / (n * (n - 1)) - 2 * _kernel_sum(x, y) / n**2


def kid(
  real: np.ndarray,
  fake: np.ndarray,
  *,
  num_subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 0,
) -> tuple[float, float]:
  """Unbiased squared MMD with the kernel (x·y / D + 1)³, over random subsets.

  Args:
    real: Features of the reference images, `[N, D]`, N ≥ 2.
    fake: Features of the generated images, `[M, D]`, M ≥ 2.
    num_subsets: How many pairs of subsets are drawn.
    subset_size: Images in each subset, drawn without replacement; at most
      min(N, M) are.
    seed: Seed of the draws.

  Returns:
    Mean and standard deviation over the subsets. The mean is an unbiased
    estimate, so it can be slightly negative.

  Source: Bińkowski et al. (1801.01401), section 4.
  """
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  size = min(subset_size, len(real), len(fake))
  rng = np.random.default_rng(seed)
  values = [
    _unbiased_mmd2(
      real[rng.choice(len(real), size, replace=False)],
      fake[rng.choice(len(fake), size, replace=False)],
    )
    for _ in range(num_subsets)
  ]
  return float(np.mean(values)), float(np.std(values))
