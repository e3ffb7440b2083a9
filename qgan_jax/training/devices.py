"""All that knows about devices: moving to `shard_map` would touch this only."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

PyTree = Any
AXIS = 'devices'


def parallel(step: Callable[..., Any]) -> Callable[..., Any]:
  """`jax.pmap` of a step (state, batch) → (state, metrics).

  The state goes in and out replicated, without a leading axis, and is
  donated; the batch has a leading axis of the local devices.
  """
  return jax.pmap(
    step,
    axis_name=AXIS,
    in_axes=(None, 0),
    out_axes=(None, None),
    donate_argnums=(0,),
  )


def _mesh() -> Mesh:
  return Mesh(np.array(jax.local_devices()), (AXIS,))


def replicate(tree: PyTree) -> PyTree:
  """Puts a tree of host arrays on every local device."""
  return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def shard(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Splits this process's batch over its devices.

  Args:
    batch: arrays [d_steps, B, …]; the local devices divide B.

  Returns:
    Arrays [devices, d_steps, B / devices, …], one row on each device.
  """
  count = jax.local_device_count()
  sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
  out = {}
  for name, x in batch.items():
    x = x.reshape(x.shape[0], count, -1, *x.shape[2:]).swapaxes(0, 1)
    out[name] = jax.device_put(np.ascontiguousarray(x), sharding)
  return out
