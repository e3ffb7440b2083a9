"""Devices: where members of a population train, and how a step is mapped.

No other file places arrays on devices or maps a function over them, so a move
from `jax.pmap` to `shard_map` would change this one alone.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from qgan_jax.backend import backend
from qgan_jax.errors import UserError
from qgan_jax.precision.replicas import Replicas
from qgan_jax.training import machine
from qgan_jax.training.flat import Packing
from qgan_jax.training.rows import as_rows, take

PyTree = Any
AXIS = 'devices'


def join(
  coordinator: str | None, processes: int | None, process: int | None
) -> None:
  """Makes this process one of several that train one run.

  To be called before any device is used. Arguments that are None are taken from
  the cluster, such as Slurm.

  Args:
    coordinator: HOST:PORT of process 0.
    processes: how many there are.
    process: which of them this is, from 0.

  Raises:
    UserError: an argument is missing, and JAX finds no cluster to ask for it.
  """
  # The training loop handles SIGTERM itself.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(coordinator, processes, process)
  except ValueError as error:
    raise UserError(
      f'the processes of the run cannot meet: {error} Give --coordinator='
      'HOST:PORT, --processes=N and --process=I, or start them by a cluster '
      'that JAX knows, such as Slurm'
    ) from None
  # On CPUs, processes have to connect within 30 seconds of each other. They do
  # so here, because some compile their first step much later than others.
  meet('start')


def spread_over_cores(members: int) -> None:
  """Makes each CPU core a device, up to one for each member.

  To be called before any device is used. XLA's threads speed up a small network
  little; members on devices of their own train at the same time. Their last
  digits are rounded differently than on a single device. Where XLA_FLAGS gives
  a number of devices, that number stays.

  Args:
    members: how many train together; of several programs, the fewest.
  """
  flag = '--xla_force_host_platform_device_count'
  if flag not in os.environ.get('XLA_FLAGS', ''):
    jax.config.update('jax_num_cpu_devices', min(members, machine.num_cores()))


def memory() -> int | None:
  """Bytes that this process's devices have, used or not; None if unknown."""
  devices = jax.local_devices()
  if devices[0].platform == 'cpu':
    return machine.memory()
  limits = [(d.memory_stats() or {}).get('bytes_limit', 0) for d in devices]
  return sum(limits) if all(limits) else None


def meet(name: str) -> None:
  """Waits until every process has called this."""
  multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
  """Whether the flag is set in any process; every process has to call this."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def from_primary(tree: PyTree) -> PyTree:
  """Process 0's tree of host arrays; every process has to call this."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the members of a population train.

  A single member uses all devices of all processes, which all hold its state.
  Several members share the devices of this process: each has a group of devices
  if there are enough; otherwise each device trains several, side by side in one
  call (`lanes`) or one after another in `rounds` calls of the same program.

  Attributes:
    members: how many there are.
    group: devices of a member; each takes a part of its batch.
    width: groups that work in one call.
    lanes: members side by side on a device in one call (`jax.vmap`).
    rounds: calls that make up one step of all members.
  """

  members: int
  group: int
  width: int = 1
  lanes: int = 1
  rounds: int = 1

  @property
  def replicated(self) -> bool:
    """Whether all devices hold the same state: one member on several."""
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


def make_layout(
  members: int,
  *,
  vmap: bool | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Layout:
  """The layout that is fastest for so many members.

  On a CPU members take turns: batched kernels do not get XLA's fast
  convolutions (four members take 1.24 s side by side, 0.34 s in turn). On an
  accelerator, which one small network leaves idle, they run side by side.

  Args:
    members: how many train together.
    vmap: side by side on a device, or in turn; None decides by the backend.
    devices: of all processes; those of this run if None.

  Raises:
    UserError: several members in a run of several processes.
  """
  if devices is None:
    devices = jax.devices()
  if members == 1:
    return Layout(1, group=len(devices))
  if len({device.process_index for device in devices}) > 1:
    raise UserError(
      f'{members} trials cannot share one program over several processes; '
      'start a process for each trial'
    )
  if members <= len(devices):
    return Layout(members, group=len(devices) // members, width=members)
  each = -(-members // len(devices))
  width = -(-members // each)
  if vmap is None:
    vmap = backend() != 'cpu'
  return Layout(
    members, group=1, width=width, **{'lanes' if vmap else 'rounds': each}
  )


class Program:
  """A step, compiled once for all members of a layout.

  On devices, states and metrics are lists with an entry for each of the
  layout's rounds: `put` sends the members' states there, `get` fetches them,
  `metrics` fetches metrics. These leave the device as one array: fetching a
  hundred scalars one by one costs more than the step of a small network.

  A call takes as many steps as it is given batches, in a loop on the device
  (`lax.scan`), because a host needs longer to start a call than an accelerator
  for the step of a small network. The data set lies on the devices, if it is
  given, and a batch is then the indices of its examples.
  """

  def __init__(
    self,
    step: Callable[..., Any],
    layout: Layout,
    devices: Sequence[jax.Device] | None = None,
    dataset: Mapping[str, np.ndarray] | None = None,
  ):
    """Wraps a step (state, batch) → (state, metrics) in `jax.pmap`.

    A state that all devices hold goes in and out without a leading axis;
    otherwise states are stacked, one on each device. Either is donated.

    Args:
      step: of one member, over `layout.axis_name` and `layout.axis_groups`;
        its metrics are scalars.
      layout: of the members.
      devices: what the layout was made for, to `lower` the step for devices
        that are not here; those of this run if None.
      dataset: what batches are taken from, arrays [N, …] by name; None where
        batches are sent whole.
    """
    self.layout = layout
    self.by_index = dataset is not None
    self._dataset = dataset or {}
    shapes = {name: x.shape[1:] for name, x in self._dataset.items()}
    alone = layout.replicated
    here = jax.local_devices() if devices is None else devices
    if not alone:
      here = here[: layout.width * layout.group]
    self._mesh = Mesh(np.array(here), (AXIS,))

    def call(
      carried: PyTree, batches: PyTree, rows: PyTree
    ) -> tuple[PyTree, jax.Array]:
      def one(carried: PyTree, batch: PyTree) -> tuple[PyTree, jax.Array]:
        if self.by_index:
          batch = take(rows, batch['indices'], shapes)
        state, metrics = step(self._packing.unpack(carried), batch)
        leaves, self._metrics_tree = jax.tree.flatten(metrics)
        return (
          self._packing.pack(state, jnp.concatenate),
          jnp.stack([x.astype(jnp.float32) for x in leaves]),
        )

      if len(next(iter(batches.values()))) == 1:
        # No loop, in which a CPU takes eight times as long.
        batch = jax.tree.map(lambda x: x[0], batches)
        carried, metrics = one(carried, batch)
        return carried, metrics[None]
      # Packed, also from step to step: two hundred arrays that a loop carries
      # cost a TPU a tenth of its cycles.
      return jax.lax.scan(one, carried, batches)

    self._call = jax.pmap(
      jax.vmap(call, (0, 0, None)) if layout.lanes > 1 else call,
      axis_name=AXIS,
      in_axes=(None if alone else 0, 0, None),
      out_axes=(None, None) if alone else 0,
      devices=devices if alone else here,
      donate_argnums=(0,),
    )

  def put(self, states: Sequence[PyTree]) -> list[PyTree]:
    """Puts the members' host states on their devices."""
    self._packing = Packing.of(states[0])
    states = [self._packing.pack(state) for state in states]
    if self.layout.replicated:
      return [self._put_replicated(states[0])]
    return self._put_stacked([[state] * self.layout.group for state in states])

  def shard(
    self, batches: Sequence[Mapping[str, np.ndarray]]
  ) -> list[dict[str, jax.Array]]:
    """Deals the members' batches out to their devices, in turn.

    Args:
      batches: of each member, arrays [steps, repeats, B, …]; this process's
        part.

    Returns:
      For each round, arrays [devices, steps, repeats, B / shards, …], lanes
      second where there are any.
    """
    layout = self.layout
    shards = layout.local_group
    parts = []
    for batch in batches:
      split = {
        name: np.moveaxis(
          x.reshape(*x.shape[:2], -1, shards, *x.shape[3:]), 3, 0
        )
        for name, x in batch.items()
      }
      parts.append([{k: x[i] for k, x in split.items()} for i in range(shards)])
    return self._put_stacked(parts)

  @functools.cached_property
  def _rows(self) -> PyTree:
    """The data set, on every device."""
    return self._put_replicated(as_rows(self._dataset))

  def _put_replicated(self, tree: PyTree) -> PyTree:
    return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

  def _put_stacked(self, parts: Sequence[Sequence[PyTree]]) -> list[PyTree]:
    """Stacks what each member's devices get to arrays [device, lane, …].

    Args:
      parts: [member][device of its group].

    Returns:
      The arrays of each round, on the devices.
    """
    layout = self.layout
    sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
    count = layout.rounds * layout.width * layout.lanes
    # Padding slots repeat the last member; their results are dropped.
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
    """Some steps of every member: (states, metrics)."""
    taken = [
      self._call(state, batch, self._rows)
      for state, batch in zip(states, batches, strict=True)
    ]
    return [state for state, _ in taken], [metrics for _, metrics in taken]

  def lower(
    self, state: PyTree, batch: Mapping[str, Any]
  ) -> jax.stages.Lowered:
    """The call of a round, ready to be compiled; from shapes alone.

    Args:
      state: of a member, `jax.ShapeDtypeStruct`s.
      batch: of a member and of all processes, likewise [steps, repeats, B, …].
    """
    layout = self.layout
    self._packing = Packing.of(state)
    pack = functools.partial(self._packing.pack, join=jnp.concatenate)
    packed = jax.eval_shape(pack, state)
    lanes = (layout.lanes,) if layout.lanes > 1 else ()
    axes = (layout.width * layout.group, *lanes)

    def stacked(x: Any) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype)

    def part(x: Any) -> jax.ShapeDtypeStruct:
      steps, repeats, images, *rest = x.shape
      shape = *axes, steps, repeats, images // layout.group, *rest
      return jax.ShapeDtypeStruct(shape, x.dtype)

    if not layout.replicated:
      packed = jax.tree.map(stacked, packed)
    rows = jax.eval_shape(lambda: as_rows(self._dataset))
    return self._call.lower(packed, jax.tree.map(part, dict(batch)), rows)

  def get(self, rounds: list[PyTree]) -> list[PyTree]:
    """The members' states, on the host."""
    return [
      self._packing.unpack(state)
      for state in self._split(jax.device_get(rounds))
    ]

  def metrics(self, calls: Sequence[list[jax.Array]]) -> list[PyTree]:
    """The members' metrics in some calls: arrays [steps], on the host."""
    by_round = zip(*jax.device_get(list(calls)), strict=True)
    # A member's: [steps, metrics].
    joined = self._split([np.concatenate(rows, axis=-2) for rows in by_round])
    return [jax.tree.unflatten(self._metrics_tree, x.T) for x in joined]

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
