"""Keys of stochastic quantizers: one for each tensor, one for each example."""

from collections.abc import Sequence
import functools
import zlib

import jax
from jax import lax
import jax.numpy as jnp

from qgan_jax.quantizers import Quantizer

Array = jax.Array


def fold(key: Array | None, role: str, path: str) -> Array | None:
  """The key of one tensor."""
  if key is None:
    return None
  return jax.random.fold_in(key, zlib.crc32(f'{role}/{path}'.encode()))


def shard_of(
  axis_name: str | None, axis_groups: Sequence[Sequence[int]] | None
) -> tuple[Array | int, int]:
  """(this replica's shard of the batch, how many there are).

  A batch is dealt out in turn: its example i is in shard i mod the number.
  """
  if axis_name is None:
    return 0, 1
  index = lax.axis_index(axis_name)
  shards = len(axis_groups[0]) if axis_groups else lax.axis_size(axis_name)
  return index % shards, shards


def example_keys(
  key: Array | None,
  x: Array,
  axis_name: str | None,
  axis_groups: Sequence[Sequence[int]] | None,
) -> Array | None:
  """A key for each example of the global batch, so that shards do not matter.

  Args:
    key: raw key of a tensor, or None.
    x: [B, …], this shard's part of it.
    axis_name: the mapped axis.
    axis_groups: its indices by batch; one for all if None.

  Returns:
    Keys [B, 2], or None.
  """
  if key is None:
    return None
  index, shards = shard_of(axis_name, axis_groups)
  each = functools.partial(jax.random.fold_in, key)
  return jax.vmap(each)(index + shards * jnp.arange(x.shape[0]))


def apply_with(
  quantizer: Quantizer,
  x: Array,
  params: dict[str, Array],
  bits: Array,
  keys: Array | None,
) -> Array:
  """Quantizes x; keys are one for all of it, or one for each example."""
  if not quantizer.stochastic or keys is None:
    return quantizer.apply(x, params, bits)
  if keys.ndim == 1:
    return quantizer.apply(x, params, bits, keys)
  return jax.vmap(quantizer.apply, (0, None, None, 0))(x, params, bits, keys)
