"""Precision, recall, density and coverage: scores of nearest neighbours.

Balls are closed (Kynkäänniemi et al., equation 1): a point at exactly the
radius is inside. This matters if images repeat, as those of a collapsed
generator do.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

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


def _squared_radii(features: np.ndarray, ks: Sequence[int]) -> np.ndarray:
  """Squared distances of points to their k-th neighbours, `[len(ks), N]`."""
  # Its import takes seconds.
  from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

  # Four times as fast on two cores as a partition of our own distances.
  search = NearestNeighbors(n_neighbors=max(ks) + 1, algorithm='brute')
  points = np.asarray(features, np.float64)
  distances, _ = search.fit(points).kneighbors(points)
  radii = distances[:, ks].T ** 2  # index 0 is the point itself
  return radii * (1 + 1e-9)  # rounding keeps the sphere inside


class Neighbours(NamedTuple):
  """Scores of nearest neighbours, each of fidelity or of diversity.

  Attributes:
    precision: the fraction of generated images inside the union of balls around
      the real ones. The radius of a ball is the distance to the k-th nearest
      real neighbour.
    recall: the same with the two sets exchanged.
    density: over all generated images, the mean number of real balls that
      contain it, divided by k. It is 1 in expectation for equal distributions,
      and can be more.
    coverage: the fraction of real balls that contain any generated image. As in
      density, only real neighbourhoods count, so that a few generated outliers
      cannot raise it.
  """

  precision: float
  recall: float
  density: float
  coverage: float


def neighbour_scores(
  real: np.ndarray,
  fake: np.ndarray,
  *,
  k_precision: int = 3,
  k_density: int = 5,
) -> Neighbours:
  """Improved precision and recall, density and coverage.

  All four are computed in one pass, since most of the work is in the distances.

  Args:
    real: Features of the reference images, `[N, D]`, N > both k.
    fake: Features of the generated images, `[M, D]`, M > k_precision.
    k_precision: For precision and recall, the neighbour that a ball reaches to,
      not counting the point itself.
    k_density: The same for density and coverage.

  Source: Kynkäänniemi et al. (1904.06991), equations 1 and 2; Naeem et al.
  (2002.09797), equations 3 and 4.
  """
  small, large = _squared_radii(real, (k_precision, k_density))
  (fake_radii,) = _squared_radii(fake, (k_precision,))
  precise = np.zeros(len(fake), bool)
  recalled, covered = np.zeros((2, len(real)), bool)
  inside = 0
  for rows, squared in _squared_distances(real, fake):
    precise |= (squared <= small[rows, None]).any(0)
    recalled[rows] = (squared <= fake_radii).any(1)
    held = np.count_nonzero(squared <= large[rows, None], axis=1)
    covered[rows] = held > 0
    inside += int(held.sum())
  return Neighbours(
    precision=float(precise.mean()),
    recall=float(recalled.mean()),
    density=inside / (k_density * len(fake)),
    coverage=float(covered.mean()),
  )
