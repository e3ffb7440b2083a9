"""Finds held-out pictures that are nearly equal to a training picture."""

import numpy as np

from qgan_jax.data.images import Size

# A thumbnail has so many pixels a side, and those of two pictures that are
# alike differ nowhere by more than so many grey levels: what JPEG, or another
# scaling, changes in a copy.
_SIDE = 8
_MOST = 8.0
_CHUNK = 256  # Held-out pictures that are compared at a time.


def near_duplicates(train: np.ndarray, test: np.ndarray) -> int:
  """How many held-out pictures look like one that is trained on.

  Two pictures look alike if their thumbnails, means over 8×8 parts of a
  picture, differ by at most 8 of 255 in every part and channel. Some such
  pictures are expected if all are alike at a distance, such as flat textures.

  Args:
    train: uint8 [N, H, W, C].
    test: uint8 [M, H, W, C].
  """
  ours, theirs = _thumbnails(train), _thumbnails(test)
  squares = (ours**2).sum(1)
  # Within `_MOST` everywhere is within this distance.
  limit = _MOST**2 * ours.shape[1]
  count = 0
  for start in range(0, len(theirs), _CHUNK):
    some = theirs[start : start + _CHUNK]
    far = squares + (some**2).sum(1)[:, None] - 2 * some @ ours.T
    rows, columns = np.nonzero(far <= limit * 1.001 + 1)
    close = np.abs(some[rows] - ours[columns]).max(1) <= _MOST
    count += len(np.unique(rows[close]))
  return count


def _thumbnails(images: np.ndarray) -> np.ndarray:
  """float32 [N, parts · C]: 8×8 parts, fewer of smaller sides."""
  size: Size = images.shape[1:3]
  rows, columns = (
    np.unique(np.linspace(0, n, _SIDE + 1).astype(int)[:-1]) for n in size
  )
  found = [
    np.add.reduceat(np.add.reduceat(x, rows, 0, np.uint32), columns, 1)
    for x in images
  ]
  heights, widths = (
    np.diff([*starts, n])
    for starts, n in zip((rows, columns), size, strict=True)
  )
  areas = np.outer(heights, widths)[..., None]
  return (np.stack(found) / areas).reshape(len(images), -1).astype(np.float32)
