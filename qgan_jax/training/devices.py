"""All that knows about devices: moving to `shard_map` would touch this only."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from qgan_jax.errors import UserError
from qgan_jax.precision.replicas import Replicas
from qgan_jax.training import flat

PyTree = Any
AXIS = 'devices'
_SMALL = 4096  # Values.


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


def spread_over_cores(members: int) -> None:
  """Makes CPU cores devices, one for each member, before any is touched.

  XLA's threads help a small network little; members on devices of their own
  train at the same time. They are rounded differently in the last digits than
  on a single device. Nothing changes where XLA_FLAGS says how many there are.

  Args:
    members: how many train together, at least.
  """
  flag = '--xla_force_host_platform_device_count'
  if flag not in os.environ.get('XLA_FLAGS', ''):
    cores = os.cpu_count() or 1
    if hasattr(os, 'sched_getaffinity'):  # Those that are this process's.
      cores = len(os.sched_getaffinity(0))
    jax.config.update('jax_num_cpu_devices', min(members, cores))


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


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the members of a population train.

  One member has all devices of all processes, and they all hold its state;
  alone on one device, it is a population of one. Several share this process's:
  groups of devices where there are enough, otherwise each device trains
  several, side by side in one call or one after another in `rounds` calls of
  the same program.

  Attributes:
    members: how many there are.
    group: devices of a member; each takes a part of its batch.
    width: groups at work in one call.
    lanes: members side by side on a device in one call (`jax.vmap`).
    rounds: calls that take all members one step further.
  """

  members: int
  group: int
  width: int = 1
  lanes: int = 1
  rounds: int = 1

  @property
  def replicated(self) -> bool:
    """Whether all devices hold one and the same state."""
    return self.members == 1 and self.group > 1

  @property
  def local_group(self) -> int:
    """Devices of this process that share a member's batch."""
    return jax.local_device_count() if self.replicated else self.group

  @property
  def axis_name(self) -> str | None:
    """The mapped axis that a member's batch is sharded over, if it is."""
    return AXIS if self.group > 1 else None

  @property
  def axis_groups(self) -> tuple[tuple[int, ...], ...] | None:
    """The axis's indices by member, where several share it."""
    if self.group == 1 or self.replicated:
      return None
    starts = range(0, self.width * self.group, self.group)
    return tuple(tuple(range(i, i + self.group)) for i in starts)

  @property
  def replicas(self) -> Replicas:
    """The devices of a member, as its step sees them."""
    return Replicas(self.axis_name, self.axis_groups)

  def place(self, member: int) -> tuple[int, int, int]:
    """(round, device, lane) of a member."""
    slot, lane = divmod(member, self.lanes)
    call, place = divmod(slot, self.width)
    return call, place * self.group, lane


ALONE = Layout(1, group=1)  # A member on one device.


def make_layout(members: int, *, vmap: bool | None = None) -> Layout:
  """The layout that is fastest for so many members.

  On a CPU, batched kernels leave XLA's fast convolutions (1.24 s for four
  members against 0.34 s in turn), so members take turns there; small networks
  leave an accelerator idle, so there they run side by side.

  Args:
    members: how many train together.
    vmap: side by side on a device, or in turn; None decides by the backend.

  Raises:
    UserError: several members in a run of several processes.
  """
  if members == 1:
    return Layout(1, group=jax.device_count())
  if jax.process_count() > 1:
    raise UserError(
      f'{members} trials cannot share one program over several processes; '
      'start a process for each trial'
    )
  devices = jax.local_device_count()
  if members <= devices:
    return Layout(members, group=devices // members, width=members)
  each = -(-members // devices)
  width = -(-members // each)
  if vmap is None:
    vmap = jax.default_backend() != 'cpu'
  return Layout(
    members, group=1, width=width, **{'lanes' if vmap else 'rounds': each}
  )


@dataclasses.dataclass(frozen=True)
class _Packing:
  """A state as few arrays: the small ones of a dtype are one vector.

  A call costs 20 µs for each array that goes in and comes out, and a quantized
  GAN has two hundred of them that hold a scale or its moments.

  Attributes:
    tree: structure of the state.
    large: names of the leaves that stay, numbers in its order.
    small: kinds of those that are packed, by name.
  """

  tree: Any
  large: tuple[str, ...]
  small: Mapping[str, list[Any]]

  @classmethod
  def of(cls, state: PyTree) -> '_Packing':
    leaves, tree = jax.tree.flatten(state)
    named = {str(i): flat.kind(leaf) for i, leaf in enumerate(leaves)}
    small = {
      name: kind for name, kind in named.items() if math.prod(kind[0]) <= _SMALL
    }
    return cls(tree, tuple(name for name in named if name not in small), small)

  def pack(
    self, state: PyTree, join: Callable[[list[Any]], Any] = np.concatenate
  ) -> dict[str, Any]:
    leaves = jax.tree.leaves(state)
    small = {name: leaves[int(name)] for name in self.small}
    return flat.concatenate(small, join) | {
      name: leaves[int(name)] for name in self.large
    }

  def unpack(self, packed: Mapping[str, Any]) -> PyTree:
    vectors = {k: x for k, x in packed.items() if k not in self.large}
    leaves = flat.split(vectors, self.small)
    leaves |= {name: packed[name] for name in self.large}
    return jax.tree.unflatten(
      self.tree, [leaves[str(i)] for i in range(len(leaves))]
    )


class Program:
  """A step, compiled once for all members of a layout.

  States and metrics are lists with an entry for each of the layout's rounds:
  `put` makes states, `get` takes them apart, and `metrics` reads metrics, which
  leave the device as a single vector: fetching a hundred scalars one by one
  costs more than the step of a small network.
  """

  def __init__(self, step: Callable[..., Any], layout: Layout):
    """Wraps a step (state, batch) → (state, metrics) in `jax.pmap`.

    A state that all devices hold goes in and out without a leading axis;
    otherwise states are stacked, one on each device. Either is donated.

    Args:
      step: of one member, over `layout.axis_name` and `layout.axis_groups`;
        its metrics are scalars.
      layout: of the members.
    """
    self.layout = layout
    alone = layout.replicated
    devices = jax.local_devices()
    if not alone:
      devices = devices[: layout.width * layout.group]
    self._mesh = Mesh(np.array(devices), (AXIS,))

    def packed(carried: PyTree, batch: PyTree) -> tuple[PyTree, jax.Array]:
      state, metrics = step(self._packing.unpack(carried), batch)
      leaves, self._metrics_tree = jax.tree.flatten(metrics)
      return (
        self._packing.pack(state, jnp.concatenate),
        jnp.stack([x.astype(jnp.float32) for x in leaves]),
      )

    self._step = jax.pmap(
      jax.vmap(packed) if layout.lanes > 1 else packed,
      axis_name=AXIS,
      in_axes=(None if alone else 0, 0),
      out_axes=(None, None) if alone else 0,
      devices=None if alone else devices,
      donate_argnums=(0,),
    )

  def put(self, states: Sequence[PyTree]) -> list[PyTree]:
    """Puts the members' host states on their devices."""
    self._packing = _Packing.of(states[0])
    states = [self._packing.pack(state) for state in states]
    if self.layout.replicated:
      sharding = NamedSharding(self._mesh, PartitionSpec())
      return [jax.device_put(states[0], sharding)]
    return self._put_stacked([[state] * self.layout.group for state in states])

  def shard(
    self, batches: Sequence[Mapping[str, np.ndarray]]
  ) -> list[dict[str, jax.Array]]:
    """Deals the members' batches out to their devices, in turn.

    Args:
      batches: of each member, arrays [repeats, B, …]; this process's part.

    Returns:
      For each round, arrays [devices, repeats, B / shards, …], lanes second
      where there are any.
    """
    layout = self.layout
    shards = layout.local_group
    parts = []
    for batch in batches:
      split = {
        name: np.moveaxis(x.reshape(x.shape[0], -1, shards, *x.shape[2:]), 2, 0)
        for name, x in batch.items()
      }
      parts.append([{k: x[i] for k, x in split.items()} for i in range(shards)])
    return self._put_stacked(parts)

  def _put_stacked(self, parts: Sequence[Sequence[PyTree]]) -> list[PyTree]:
    """[member][device of its group] to arrays [device, lane, …] by round."""
    layout = self.layout
    sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
    count = layout.rounds * layout.width * layout.lanes
    # Places left over repeat the last member, and nobody looks.
    filled = [*parts, *[parts[-1]] * (count - len(parts))]
    rounds = []
    for start in range(0, count, layout.width * layout.lanes):
      rows = []
      for slot in range(
        start, start + layout.width * layout.lanes, layout.lanes
      ):
        lanes = filled[slot : slot + layout.lanes]
        for on_device in zip(*lanes, strict=True):
          rows.append(_stack(on_device) if layout.lanes > 1 else on_device[0])
      rounds.append(jax.device_put(_stack(rows), sharding))
    return rounds

  def __call__(
    self, states: list[PyTree], batches: list[PyTree]
  ) -> tuple[list[PyTree], list[jax.Array]]:
    """One step of every member: (states, metrics)."""
    taken = [
      self._step(state, batch)
      for state, batch in zip(states, batches, strict=True)
    ]
    return [state for state, _ in taken], [metrics for _, metrics in taken]

  def get(self, rounds: list[PyTree]) -> list[PyTree]:
    """The members' states, on the host."""
    return [
      self._packing.unpack(state)
      for state in self._split(jax.device_get(rounds))
    ]

  def metrics(self, steps: Sequence[list[jax.Array]]) -> list[PyTree]:
    """The members' metrics in some steps: arrays [steps], on the host."""
    by_round = zip(*jax.device_get(list(steps)), strict=True)
    # A member's: [steps, metrics].
    stacked = self._split([np.stack(rows, axis=-2) for rows in by_round])
    return [jax.tree.unflatten(self._metrics_tree, x.T) for x in stacked]

  def _split(self, fetched: list[PyTree]) -> list[PyTree]:
    if self.layout.replicated:
      return fetched
    members = []
    for member in range(self.layout.members):
      call, device, lane = self.layout.place(member)
      at = (device, lane) if self.layout.lanes > 1 else (device,)
      members.append(
        jax.tree.map(lambda x, at=at: np.asarray(x[at]), fetched[call])
      )
    return members


def _stack(trees: Sequence[PyTree]) -> PyTree:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
