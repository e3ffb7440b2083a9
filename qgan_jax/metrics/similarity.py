"""How similar images are to their own targets: L1, PSNR and SSIM."""

import numpy as np
from scipy import ndimage

_WHITE = 255.0
# Of SSIM, as in its paper: the window's deviation and radius in pixels, K₁, K₂.
_SIGMA, _RADIUS, _K1, _K2 = 1.5, 5, 0.01, 0.03


def similarity(targets: np.ndarray, images: np.ndarray) -> dict[str, float]:
  """Means over pairs of a target and an image.

  Args:
    targets: uint8 `[N, H, W, C]`.
    images: The same shape; image i is compared with target i.

  Returns:
    `l1`, the mean absolute difference of values in [0, 1]; `psnr`, the peak
    signal-to-noise ratio of an image in dB, where equal images count as if one
    value were off by one grey level; `ssim`, the structural similarity of each
    channel (Wang et al. 2004, "Image quality assessment: from error visibility
    to structural similarity", eq. 13), with their Gaussian window of 11×11
    pixels wherever it fits into the image; of smaller images, with the largest
    odd window that does.
  """
  x, y = (np.asarray(a, np.float64) for a in (targets, images))
  values = x[0].size
  squares = np.square(x - y).reshape(len(x), -1).mean(1)
  peak = 10 * np.log10(_WHITE**2 / np.maximum(squares, 1 / values))
  ssim = [_ssim(a, b) for a, b in zip(x, y, strict=True)]
  return {
    'l1': float(np.abs(x - y).mean() / _WHITE),
    'psnr': float(peak.mean()),
    'ssim': float(np.mean(ssim)),
  }


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
  """Of one pair, float64 [H, W, C]."""
  radius = min(_RADIUS, (min(x.shape[:2]) - 1) // 2)

  def mean(values: np.ndarray) -> np.ndarray:
    """By the window around each pixel, where it lies inside the image."""
    for axis in (0, 1):
      values = ndimage.gaussian_filter1d(
        values, _SIGMA, axis=axis, radius=radius
      )
    inside = (slice(radius, size - radius) for size in x.shape[:2])
    return values[*inside]

  mean_x, mean_y = mean(x), mean(y)
  variance_x = mean(x * x) - mean_x**2
  variance_y = mean(y * y) - mean_y**2
  covariance = mean(x * y) - mean_x * mean_y
  c1, c2 = (_K1 * _WHITE) ** 2, (_K2 * _WHITE) ** 2
  return float(
    np.mean(
      (2 * mean_x * mean_y + c1)
      * (2 * covariance + c2)
      / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    )
  )
