"""Random keys of stochastic quantizers, for each tensor and each example."""

import functools
import zlib

import jax

from qgan_jax.precision.replicas import Replicas
from qgan_jax.quantizers import Quantizer

Array = jax.Array


def fold(key: Array | None, role: str, path: str) -> Array | None:
  """The random key of one tensor, from that of the step."""
  if key is None:
    return None
  return jax.random.fold_in(key, zlib.crc32(f'{role}/{path}'.encode()))


def example_keys(
  key: Array | None, x: Array, replicas: Replicas
) -> Array | None:
  """A key for each example, the same however the batch is split over devices.

  Args:
    key: raw key of a tensor, or None.
    x: [B, …], this replica's part of the batch.
    replicas: the devices that hold the parts of the batch.

  Returns:
    Keys [B, 2], or None.
  """
  if key is None:
    return None
  each = functools.partial(jax.random.fold_in, key)
  return jax.vmap(each)(replicas.indices(x.shape[0]))


def apply_with(
  quantizer: Quantizer,
  x: Array,
  params: dict[str, Array],
  bits: Array,
  keys: Array | None,
) -> Array:
  """Quantizes x with one key for all of it, or with one for each example."""
  if not quantizer.stochastic or keys is None:
    return quantizer.apply(x, params, bits)
  if keys.ndim == 1:
    return quantizer.apply(x, params, bits, keys)
  return jax.vmap(quantizer.apply, (0, None, None, 0))(x, params, bits, keys)
