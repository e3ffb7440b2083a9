import numpy as np
from sklearn import datasets

from qgan_jax import data


def test_they_are_scikit_learns_scans():
  found = data.load('digits', image_size=8)
  assert found.name == 'digits'
  assert not found.is_standin
  assert found.train_images.shape == (1438, 8, 8, 1)
  assert found.test_images.shape == (359, 8, 8, 1)
  scans = datasets.load_digits()
  expected = sorted(
    (tuple(np.rint(scan.ravel() / 16 * 255).astype(int)), label)
    for scan, label in zip(scans.images, scans.target, strict=True)
  )
  got = sorted(
    (tuple(image.ravel().astype(int)), label)
    for images, labels in (
      (found.train_images, found.train_labels),
      (found.test_images, found.test_labels),
    )
    for image, label in zip(images, labels, strict=True)
  )
  # NumPy rounds both x.5 to even, so the products must be equal exactly.
  assert got == expected
  assert set(found.test_labels) == set(range(10))


def test_they_come_at_any_size():
  found = data.load('digits', image_size=28, channels=3)
  assert found.train_images.shape == (1438, 28, 28, 3)
  # Bright strokes on black, as in MNIST.
  assert found.train_images[:, :, 0].mean() < 10 < found.train_images.mean()
