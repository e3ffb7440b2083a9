"""Batches that are taken on a device, against NumPy."""

import jax
import numpy as np
import pytest

from qgan_jax.training.rows import as_rows, take


@pytest.mark.parametrize('shape', [(28, 28, 1), (8, 16, 1), (16, 16, 3)])
def test_a_batch_is_that_of_its_indices(shape):
  rng = np.random.default_rng(0)
  dataset = {
    'images': rng.integers(0, 256, (9, *shape), np.uint8),
    'labels': np.arange(9, dtype=np.int32),
  }
  rows = as_rows(dataset)
  assert rows['images'].shape[1] % 128 == 0
  assert rows['images'].nbytes < dataset['images'].nbytes + 9 * 128
  indices = rng.integers(0, 9, (2, 5))
  shapes = {name: x.shape[1:] for name, x in dataset.items()}
  batch = jax.jit(lambda rows, i: take(rows, i, shapes))(rows, indices)
  for name, x in dataset.items():
    np.testing.assert_array_equal(batch[name], x[indices])
    assert batch[name].dtype == x.dtype
