"""Precision, recall, density and coverage: scores of nearest neighbours.

Balls are closed (Kynkäänniemi et al., equation 1): a point at exactly the
radius is inside. That matters where images repeat, as in a collapsed generator.
"""

from collections.abc import Iterator

import numpy as np

# Distances held at once: 8 MiB of float64, which a processor's cache holds.
_CHUNK_ELEMENTS = 2**20


def _squared_distances(
  x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields (rows of x, their squared distances to all of y), a chunk a time."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  x_norm, y_norm = (np.einsum('nd,nd->n', z, z) for z in (x, y))
  minus_2_y = -2 * y.T
  step = max(1, _CHUNK_ELEMENTS // len(y))
  for start in range(0, len(x), step):
    rows = slice(start, start + step)
    squared = x[rows] @ minus_2_y
    squared += x_norm[rows, None]
    squared += y_norm
    # float64 keeps the cancellation below the resolution of float32 features;
    # what is left of it is set to zero, so that equal points are at distance 0.
    squared[squared < 1e-13 * x_norm[rows, None]] = 0
    yield rows, squared


def _squared_radii(features: np.ndarray, k: int) -> np.ndarray:
  """Squared distance of each point to its k-th neighbour but itself, `[N]`."""
  radii = np.empty(len(features))
  for rows, squared in _squared_distances(features, features):
    squared.partition(k, axis=1)  # index 0 is the point itself
    radii[rows] = squared[:, k]
  return radii * (1 + 1e-9)  # on the sphere is inside, however rounded


def precision_recall(
  real: np.ndarray, fake: np.ndarray, *, k: int = 3
) -> tuple[float, float]:
  """Improved precision and recall.

  Precision is the fraction of generated images inside the union of balls
  around the real ones, each reaching to its k-th nearest real neighbour;
  recall is the same with the two sets exchanged.

  Args:
    real: Features of the reference images, `[N, D]`, N > k.
    fake: Features of the generated images, `[M, D]`, M > k.
    k: Neighbours that a ball reaches to, the point itself excluded.

  Returns:
    Precision (fidelity) and recall (diversity), in [0, 1].

  Source: Kynkäänniemi et al. (1904.06991), equations 1 and 2.
  """
  real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
  precise = np.zeros(len(fake), bool)
  recalled = np.zeros(len(real), bool)
  for rows, squared in _squared_distances(real, fake):
    precise |= (squared <= real_radii[rows, None]).any(0)
    recalled[rows] = (squared <= fake_radii).any(1)
  return float(precise.mean()), float(recalled.mean())


def density_coverage(
  real: np.ndarray, fake: np.ndarray, *, k: int = 5
) -> tuple[float, float]:
  """Density and coverage.

  Density counts how many real balls hold a generated image, over k; coverage is
  the fraction of real balls that hold any. Only real neighbourhoods count, so a
  few generated outliers cannot inflate them.

  Args:
    real: Features of the reference images, `[N, D]`, N > k.
    fake: Features of the generated images, `[M, D]`.
    k: Neighbours that a ball reaches to, the point itself excluded.

  Returns:
    Density (fidelity; 1 in expectation for equal distributions, and can be
    more) and coverage (diversity, in [0, 1]).

  Source: Naeem et al. (2002.09797), equations 3 and 4.
  """
  radii = _squared_radii(real, k)
  inside, covered = 0, np.zeros(len(real), bool)
  for rows, squared in _squared_distances(real, fake):
    hits = squared <= radii[rows, None]
    inside += int(np.count_nonzero(hits))
    covered[rows] = hits.any(1)
  return inside / (k * len(fake)), float(covered.mean())
