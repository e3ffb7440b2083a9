"""What a step costs, as the compiler tells it, and which rate bounds it."""

import time
from typing import Any, NamedTuple

import jax
from jaxlib import _jax

from qgan_jax.chips import program
from qgan_jax.chips.program import Program
from qgan_jax.chips.topologies import Machine


class Costs(NamedTuple):
  """What a step of a compiled program costs a device.

  Attributes:
    compiling: seconds that it took to compile, on this machine.
    state: bytes of its arguments: the state, and a batch or the data set.
    temporaries: bytes that it takes beyond these, outputs included.
    flops: floating-point operations.
    bytes: read and written.
    optimum: seconds, the compiler's own; None where it tells none.
    program: its kernels.
  """

  compiling: float
  state: int
  temporaries: int
  flops: float
  bytes: float
  optimum: float | None
  program: Program

  @property
  def memory(self) -> int:
    """Bytes of a device that it takes in all."""
    return self.state + self.temporaries


def compile_step(lowered: jax.stages.Lowered, steps: int = 1) -> Costs:
  """Compiles a program and reads what it costs.

  Args:
    lowered: the program.
    steps: that a call of it takes, in a loop, which XLA counts once.
  """
  start = time.monotonic()
  compiled = lowered.compile()
  seconds = time.monotonic() - start
  memory: Any = compiled.memory_analysis()
  read = program.read(compiled.as_text() or '', steps)
  analysis: Any = compiled.cost_analysis()
  if analysis is None:
    # XLA's compiler for GPUs tells none. Operations are those of the program
    # before it was optimized; what is moved is what kernels read and write.
    hlo: Any = lowered.compiler_ir('hlo')
    analysis = _jax.hlo_module_cost_analysis(
      jax.local_devices()[0].client, hlo.as_hlo_module()
    )
    analysis |= {'bytes accessed': sum(read.bytes.values())}
  optimum = analysis.get('optimal_seconds', 0.0)
  return Costs(
    compiling=seconds,
    state=memory.argument_size_in_bytes,
    temporaries=memory.temp_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes,
    flops=analysis['flops'],
    bytes=analysis['bytes accessed'],
    optimum=optimum if optimum > 0 else None,
    program=read,
  )


def bounds(costs: Costs, machine: Machine, *, dtype: str) -> dict[str, float]:
  """The least seconds that a step takes, by what bounds it; {} if unknown.

  Each is a cost over the chip's published peak rate, as in a roofline
  (Williams et al. 2009). An all-reduce over n devices sends 2 (n − 1) / n times
  what it reduces.

  Args:
    costs: of the program.
    machine: what it runs on.
    dtype: of the arithmetic.
  """
  chip, count = machine.chip, len(machine.devices)
  if chip is None:
    return {}
  slower = 2 if machine.backend == 'gpu' and dtype == 'float32' else 1
  sent = 2 * (count - 1) / count * costs.program.reduced
  return {
    'compute': slower * costs.flops / (machine.share * chip.flops),
    'memory': costs.bytes / (machine.share * chip.bandwidth),
    'collectives': sent / (machine.share * chip.link),
  }


def estimate(
  costs: Costs, machine: Machine, *, dtype: str
) -> tuple[float, str] | None:
  """(seconds of a step, how they were estimated); None where nothing is known.

  Where the compiler gives its schedule in cycles, their sum is the estimate, as
  kernels run one after another; the time of collectives comes on top, of which
  it gives none. Otherwise it is the compiler's optimum, or else what bounds the
  program.
  """
  found = bounds(costs, machine, dtype=dtype)
  cycles = sum(costs.program.cycles.values())
  if machine.chip and machine.chip.clock and cycles:
    seconds = cycles / machine.chip.clock + found['collectives']
    return seconds, f"the compiler's cycles at {machine.chip.clock / 1e9:g} GHz"
  if costs.optimum is not None:
    return costs.optimum, "the compiler's optimum"
  if found:
    return max(found.values()), 'peak rates alone: a real step is slower'
  return None


def largest_batch(costs: Costs, machine: Machine, batch: int) -> int | None:
  """An estimate, on the safe side, of the largest batch that fits.

  All that the program makes is taken to grow with the batch, and to lie in
  memory at once. In truth gradients do not grow, and memory is used again, so
  more may fit. What the compiler says of temporaries would not do: those of a
  small batch may lie in a chip's faster memory. None where memory is unknown.

  Args:
    costs: of the program.
    machine: what it runs on.
    batch: images of a device in that program.
  """
  if machine.chip is None:
    return None
  free = machine.chip.memory * machine.share
  return max(0, int((free - costs.state) * batch / _growing(costs)))


def most_runs(costs: Costs, machine: Machine, runs: int) -> int | None:
  """The same of runs that a device trains together, with a state each."""
  if machine.chip is None:
    return None
  each = (costs.state + _growing(costs)) / runs
  return int(machine.chip.memory * machine.share / each)


def _growing(costs: Costs) -> int:
  """Bytes that are taken to grow with the batch."""
  return max(costs.temporaries, costs.program.made)
