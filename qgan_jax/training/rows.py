"""A data set on a device, from which batches are taken by their indices."""

from collections.abc import Mapping
import math

import jax
import jax.numpy as jnp
import numpy as np

_WIDTH = 128  # Of a TPU's vectors.


def as_rows(dataset: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Makes each example one row, whose length is a multiple of 128.

  A TPU that is given images as they are, or rows of 784 bytes, lays them out
  so that none of them lies in one piece, and copies the whole set into another
  order at each call: 45 MiB for MNIST.

  Args:
    dataset: arrays [N, …] by name.

  Returns:
    Arrays [N, length]; those without further axes, such as labels, stay [N].
  """
  found = {}
  for name, examples in dataset.items():
    found[name] = examples
    if examples.ndim > 1:
      rows = examples.reshape(len(examples), -1)
      found[name] = np.pad(rows, ((0, 0), (0, -rows.shape[1] % _WIDTH)))
  return found


def take(
  rows: Mapping[str, jax.Array],
  indices: jax.Array,
  shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, jax.Array]:
  """Takes a batch.

  Args:
    rows: of `as_rows`.
    indices: of examples, whole numbers of any shape.
    shapes: of an example, by name.

  Returns:
    Arrays [*indices, *shape] by name.
  """
  batch = {}
  for name, x in rows.items():
    taken = jnp.take(x, indices, axis=0, mode='clip')
    if x.ndim > 1:
      taken = taken[..., : math.prod(shapes[name])]
    batch[name] = taken.reshape(*indices.shape, *shapes[name])
  return batch
