"""Packs small arrays into one vector per dtype.

Every argument and result of a jitted call costs about 20 µs, whatever its size,
and Orbax is slow at saving many small arrays.
"""

from collections.abc import Callable, Mapping
import math
from typing import Any

import jax
import numpy as np

Array = np.ndarray | jax.Array


def kind(leaf: Any) -> list[Any]:
  """[shape, dtype] of an array or a `ShapeDtypeStruct`, as JSON can hold it."""
  array = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  return [list(array.shape), str(array.dtype)]


def concatenate(
  leaves: Mapping[str, Any], join: Callable[[list[Any]], Any] = np.concatenate
) -> dict[str, Any]:
  """Joins all leaves of a dtype to one vector; empty leaves are left out.

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
  """Undoes `concatenate`.

  Args:
    vectors: what `concatenate` returned, by dtype.
    kinds: the `kind` of every leaf by name, in the order of `concatenate`.
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
