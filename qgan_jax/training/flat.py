"""Packs small arrays into one vector per dtype.

Every argument and result of a jitted call costs about 20 µs, whatever its size,
and Orbax is slow at saving many small arrays.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import jax
import numpy as np

Array = np.ndarray | jax.Array
PyTree = Any
_SMALL = 4096  # Values.


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


@dataclasses.dataclass(frozen=True)
class Packing:
  """A state as few arrays: the small ones of a dtype are one vector.

  A call costs 20 µs for each array that goes in and comes out, and a quantized
  GAN has two hundred of them that hold a scale or its moments.

  Attributes:
    tree: structure of the state.
    large: names of the leaves that are not packed: their numbers in `tree`.
    small: the `kind` of each packed leaf, by name.
  """

  tree: Any
  large: tuple[str, ...]
  small: Mapping[str, list[Any]]

  @classmethod
  def of(cls, state: PyTree) -> 'Packing':
    """How to pack states like this one; its leaves may be shapes alone."""
    leaves, tree = jax.tree.flatten(state)
    kinds = {str(i): kind(leaf) for i, leaf in enumerate(leaves)}
    small = {n: own for n, own in kinds.items() if math.prod(own[0]) <= _SMALL}
    return cls(tree, tuple(name for name in kinds if name not in small), small)

  def pack(
    self, state: PyTree, join: Callable[[list[Any]], Any] = np.concatenate
  ) -> dict[str, Any]:
    """The arrays, by dtype or by number; `join` is as in `concatenate`."""
    leaves = jax.tree.leaves(state)
    small = {name: leaves[int(name)] for name in self.small}
    return concatenate(small, join) | {
      name: leaves[int(name)] for name in self.large
    }

  def unpack(self, packed: Mapping[str, Any]) -> PyTree:
    """Undoes `pack`."""
    vectors = {k: x for k, x in packed.items() if k not in self.large}
    leaves = split(vectors, self.small)
    leaves |= {name: packed[name] for name in self.large}
    return jax.tree.unflatten(
      self.tree, [leaves[str(i)] for i in range(len(leaves))]
    )
