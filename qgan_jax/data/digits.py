"""Handwritten digits that need no download: those of scikit-learn."""

import numpy as np

from qgan_jax.data import images
from qgan_jax.data.dataset import ImageDataset, split_off_test


def load(
  *, image_size: int | images.Size, channels: int | None = None
) -> ImageDataset:
  """Loads the 1,797 scanned digits that come with scikit-learn.

  They are the test part of "Optical Recognition of Handwritten Digits"
  (Alpaydin and Kaynak, UCI 1998): 8×8 pixels with the values 0..16, here scaled
  to 0..255 and resized. A fixed fifth (359 images) is held out. It is drawn at
  random, so both parts have digits of the same writers.

  Args:
    image_size: Height and width of the result, in pixels, or one number.
    channels: 1 or 3; None means 1.

  Returns:
    The data set, named `'digits'`.
  """
  # Imported here because it takes longer than everything else in this package.
  from sklearn import datasets  # noqa: PLC0415

  scans = datasets.load_digits()
  pixels = np.round(scans.images * (255 / 16)).astype(np.uint8)
  return split_off_test(
    name='digits',
    images=images.resize_all(
      pixels[..., None], image_size=image_size, channels=channels
    ),
    labels=scans.target.astype(np.int32),
    num_classes=10,
    fraction=0.2,
  )
