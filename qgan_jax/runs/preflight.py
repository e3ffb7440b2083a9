"""Compiles the steps of runs for a machine, and estimates what they cost.

Each step is the program that the run itself would compile, made by the same
code from shapes alone. On the machine itself, some steps are also run and
timed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from qgan_jax.backend import traced_for
from qgan_jax.chips import costs
from qgan_jax.chips.costs import Costs
from qgan_jax.chips.topologies import Machine
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.precision import Precision
from qgan_jax.runs import build, inputs
from qgan_jax.runs.shared import make_layout, program_key, shared_config
from qgan_jax.training import devices, loop

_CALLS = 20  # That are timed, after as many that are not.


class Checked(NamedTuple):
  """A program of one trial, or of several that train together.

  Attributes:
    config: resolved; for several trials, the part that they share.
    dataset: the name of the images.
    machine: what each call runs on.
    trials: how many runs have this program.
    at_once: how many of them train at the same time.
    rounds: number of calls in a step of all runs that share a program.
    images: of the batch, on each device.
    runs: how many runs a device trains together.
    steps_per_call: number of steps in a call.
    costs: of a step of a round.
    in_float: of the same program without quantization; None if it has none.
    measured: seconds of a step, on the machine itself; None if it is not here.
  """

  config: Any
  dataset: str
  machine: Machine
  trials: int
  at_once: int
  rounds: int
  images: int
  runs: int
  steps_per_call: int
  costs: Costs
  in_float: Costs | None
  measured: float | None

  @property
  def estimated(self) -> tuple[float, str] | None:
    """(seconds of a step of all that train at once, how they are known)."""
    found = costs.estimate(self.costs, self.machine, dtype=self.config.dtype)
    return found and (found[0] * self.rounds, found[1])

  @property
  def seconds_at_once(self) -> float | None:
    """Seconds to train those trials that train at the same time."""
    step = self.measured or (self.estimated and self.estimated[0])
    return None if step is None else self.config.steps * step

  @property
  def seconds(self) -> float | None:
    """Seconds to train all trials, without scores, checkpoints and the host."""
    once = self.seconds_at_once
    return None if once is None else -(-self.trials // self.at_once) * once


def spread_over_cores(configs: Sequence[Any]) -> None:
  """Makes as many devices of this CPU's cores as the population would.

  To be called before any device is used.

  Args:
    configs: of all runs, resolved.
  """
  programs = Counter(map(program_key, configs))
  devices.spread_over_cores(min(programs.values()))


def check(
  configs: Sequence[Any],
  machine: Machine,
  *,
  population: bool,
  against_float: bool,
) -> list[Checked]:
  """Compiles each program that runs would need.

  Args:
    configs: of the runs, resolved.
    machine: what they are to run on. A single run, or a population, uses all of
      it. If several runs have a process each, each uses one chip.
    population: whether runs share programs if they can.
    against_float: whether to compile each in float, too.

  Raises:
    UserError: a run is not possible in this way.
  """
  inputs.check_for_training(configs)
  datasets: dict[Any, ImageDataset] = {}
  for config in configs:
    if config.data not in datasets:
      datasets[config.data] = build.load_dataset(config, standin=True)
  with traced_for(machine.backend):
    if len(configs) > 1 and not population:
      return _in_processes(configs, datasets, machine, against_float)
    groups: dict[Any, list[Any]] = {}
    for config in configs:
      groups.setdefault(program_key(config), []).append(config)
    return [
      _check(group, datasets, machine, len(group), len(group), against_float)
      for group in groups.values()
    ]


def _in_processes(
  configs: Sequence[Any],
  datasets: Mapping[Any, ImageDataset],
  machine: Machine,
  against_float: bool,
) -> list[Checked]:
  each = len(machine.devices) // machine.chips
  chip = machine._replace(devices=machine.devices[:each], chips=1)
  groups: dict[Any, list[Any]] = {}
  for config in configs:
    # Trials whose widths differ have one program, if as much is quantized.
    setup = build.set_up(config, datasets[config.data])
    key = program_key(config), setup.static
    groups.setdefault(key, []).append(config)
  return [
    _check(group[:1], datasets, chip, len(group), machine.chips, against_float)
    for group in groups.values()
  ]


def _check(
  configs: Sequence[Any],
  datasets: Mapping[Any, ImageDataset],
  machine: Machine,
  trials: int,
  at_once: int,
  against_float: bool,
) -> Checked:
  """Compiles the program of trials that train together."""
  config = shared_config(configs)
  dataset = datasets[config.data]
  layout = make_layout(config, len(configs), machine.devices)
  setup = build.set_up(config, dataset, layout)
  in_float = None
  if against_float and setup.is_quantized:
    networks = {
      name: dataclasses.replace(network, precision=Precision())
      for name, network in setup.networks.items()
    }
    in_float = _compile(dataclasses.replace(setup, networks=networks), machine)
  return Checked(
    config=config,
    dataset=dataset.name,
    machine=machine,
    trials=trials,
    at_once=at_once,
    rounds=layout.rounds,
    images=config.batch_size // layout.group * layout.lanes,
    runs=layout.lanes,
    steps_per_call=setup.steps_per_call,
    costs=_compile(setup, machine),
    in_float=in_float,
    measured=_measure(setup, len(configs)) if machine.here else None,
  )


def _compile(setup: build.Setup, machine: Machine) -> Costs:
  config: Any = setup.config
  shape = setup.steps_per_call, setup.variant.repeats, config.batch_size
  program = setup.program(None if machine.here else machine.devices)
  if program.by_index:
    batch = {'indices': jax.ShapeDtypeStruct(shape, np.int32)}
  else:
    size = setup.dataset.train_images.shape[1:]
    batch = {'images': jax.ShapeDtypeStruct((*shape, *size), np.uint8)}
    if setup.labels is not None:
      batch['labels'] = jax.ShapeDtypeStruct(shape, np.int32)
  lowered = program.lower(setup.state_shapes(), batch)
  try:
    return costs.compile_step(lowered, setup.steps_per_call)
  except jax.errors.JaxRuntimeError as error:
    first = str(error).splitlines()[0]
    if 'INTERNAL' in first:
      raise UserError(
        f'jaxlib cannot read what the compiler of {machine.name} has made '
        f'({first}): another version of libtpu may do'
      ) from None
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise UserError(
      f'this run does not fit into the memory of {machine.name}: make '
      f'batch_size={config.batch_size} or channels smaller '
      f'({first})'
    ) from None


def _measure(setup: build.Setup, members: int) -> float:
  """Seconds of a step of all members, batches included: the median of some."""
  program = setup.program()
  batches = setup.batches(setup.layout)
  states = program.put(setup.init_states([setup] * members))
  seconds = []
  each = setup.steps_per_call
  for steps in loop.calls(0, 2 * _CALLS * each, each):
    start = time.monotonic()
    batch = loop.stack_batches(
      batches, steps, setup.variant.repeats, by_index=program.by_index
    )
    states, metrics = program(states, program.shard([batch] * members))
    jax.block_until_ready(metrics)
    seconds.append((time.monotonic() - start) / each)
  return statistics.median(seconds[_CALLS:])
