"""Whether a generator copies its training images.

It finds the training images nearest to the generated ones, to be looked at, and
one number that tells whether generated images are nearer to training images
than new real images are.
"""

from typing import NamedTuple

import numpy as np


class Copying(NamedTuple):
  """How near generated images are to training images.

  Attributes:
    nearest: `[M, k]`, indices of the k nearest training images of each
      generated image, nearest first.
    distances: `[M, k]`, their distances.
    data_copying: Over all pairs of a generated and a held-out image, how often
      the generated one is nearer to its nearest training image than the
      held-out one is to its own; equal distances count half. It is ½ if
      generated images are like new real ones, 1 if they are copies, and less
      than ½ if they are unlike any.
  """

  nearest: np.ndarray
  distances: np.ndarray
  data_copying: float


def copying(
  train: np.ndarray, held_out: np.ndarray, fake: np.ndarray, *, k: int
) -> Copying:
  """Finds the nearest training images, and compares the distances to them.

  Args:
    train: Features of the training images, `[N, D]`, N ≥ k.
    held_out: Features of real images that were not trained on, `[L, D]`.
    fake: Features of the generated images, `[M, D]`.
    k: Number of neighbours to find for each generated image.

  Source: Meehan et al. (2004.05675), section 3: `data_copying` is the statistic
  U of Mann and Whitney, divided by the number of pairs, for the whole space at
  once.

  Example:
    >>> train = np.array([[0.0], [1.0], [2.0]])
    >>> found = copying(train, np.array([[2.5]]), np.array([[1.0]]), k=2)
    >>> found.nearest[0, 0], found.data_copying
    (np.int64(1), 1.0)
  """
  # Its import takes seconds.
  from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

  search = NearestNeighbors(n_neighbors=k, algorithm='brute')
  search.fit(np.asarray(train, np.float64))
  distances, nearest = search.kneighbors(np.asarray(fake, np.float64))
  new, _ = search.kneighbors(np.asarray(held_out, np.float64), n_neighbors=1)
  new = np.sort(new[:, 0])
  nearer = len(new) - np.searchsorted(new, distances[:, 0], 'right')
  not_further = len(new) - np.searchsorted(new, distances[:, 0], 'left')
  return Copying(
    nearest, distances, float((nearer + not_further).mean() / 2 / len(new))
  )
