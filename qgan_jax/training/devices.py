"""All that knows about devices: moving to `shard_map` would touch this only."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from qgan_jax.errors import UserError

PyTree = Any
AXIS = 'devices'


def join(
  coordinator: str | None, processes: int | None, process: int | None
) -> None:
  """Makes this process one of a run of many; before any device is touched.

  Args:
    coordinator: HOST:PORT of process 0; a cluster tells what is None.
    processes: how many there are.
    process: which of them this is, from 0.

  Raises:
    UserError: something is missing, and no cluster is found that tells it.
  """
  # SIGTERM is the loop's to handle.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(coordinator, processes, process)
  except ValueError as error:
    raise UserError(
      f'the processes of the run cannot meet: {error} Give --coordinator='
      'HOST:PORT, --processes=N and --process=I, or start them by a cluster '
      'that JAX knows, such as Slurm'
    ) from None
  # On CPUs they have 30 seconds to connect, and all the time afterwards: not
  # to be left to the first step, which some compile sooner than others.
  meet('start')


def meet(name: str) -> None:
  """Waits until every process is here."""
  multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
  """Whether the flag is set in any process; each of them has to ask."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def from_primary(tree: PyTree) -> PyTree:
  """A tree of host arrays as process 0 has it; each of them has to ask."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


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
