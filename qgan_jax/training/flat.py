"""Many small arrays as one: each that crosses a border costs by itself."""

from collections.abc import Callable, Mapping
import math
from typing import Any

import jax
import numpy as np

Array = np.ndarray | jax.Array


def kind(leaf: Any) -> list[Any]:
  """[shape, dtype] of an array or of what stands for one, in JSON's types."""
  array = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  return [list(array.shape), str(array.dtype)]


def concatenate(
  leaves: Mapping[str, Any], join: Callable[[list[Any]], Any] = np.concatenate
) -> dict[str, Any]:
  """All leaves of a dtype in one vector, by dtype; none of those of size 0.

  Args:
    leaves: arrays by name.
    join: `np.concatenate`, or `jnp.concatenate` of traced arrays.
  """
  by_dtype: dict[str, list[Any]] = {}
  for leaf in leaves.values():
    if leaf.size:
      by_dtype.setdefault(str(leaf.dtype), []).append(leaf.ravel())
  return {dtype: join(flat) for dtype, flat in by_dtype.items()}


def split(
  vectors: Mapping[str, Any], kinds: Mapping[str, list[Any]]
) -> dict[str, Any]:
  """The leaves again.

  Args:
    vectors: what `concatenate` returned.
    kinds: of the leaves by name, in the same order.
  """
  leaves = {}
  taken = dict.fromkeys(vectors, 0)
  for name, (shape, dtype) in kinds.items():
    size = math.prod(shape)
    if not size:
      leaves[name] = np.zeros(shape, dtype)
      continue
    start = taken[dtype]
    taken[dtype] += size
    leaves[name] = vectors[dtype][start : start + size].reshape(shape)
  return leaves
