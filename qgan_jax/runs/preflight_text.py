"""The results of a preflight, as text and as numbers for JSON."""

import heapq
from typing import Any

from qgan_jax.chips import costs
from qgan_jax.chips.costs import Costs
from qgan_jax.runs.preflight import Checked

_SHOWN = 6  # Kinds of kernels whose difference from float is listed.


def describe(checked: Checked, name: str) -> str:
  """All results for a program, one line each."""
  c, machine, config = checked.costs, checked.machine, checked.config
  lines = [
    (name, f'{checked.dataset}, {_runs(checked)} on {_on(checked)}'),
    ('compiles', f'in {c.compiling:.0f} s here'),
    ('memory', _memory(checked)),
    ('a call', _count(checked.steps_per_call, 'step')),
    ('a step', _counts(c)),
  ]
  bounds = costs.bounds(c, machine, dtype=config.dtype)
  if bounds:
    told = ', '.join(f'{k} {_time(v)}' for k, v in bounds.items())
    first = max(bounds, key=bounds.__getitem__)
    lines.append(('bound by', f'{first}, at peak rates: {told} (estimated)'))
  if checked.measured is not None:
    lines.append(
      ('measured', f'{_time(checked.measured)} a step, data included')
    )
  if checked.estimated:
    seconds, how = checked.estimated
    lines.append(('estimated', f'{_time(seconds)} a step: {how}'))
  if checked.in_float is not None:
    lines += [('float', line) for line in _against(checked, checked.in_float)]
  if checked.seconds is not None:
    lines.append(('training', _run(checked)))
  return '\n'.join(f'{head:<10} {line}' for head, line in lines)


def total(
  found: list[Checked], price: float | None, *, population: bool
) -> str:
  """Hours and price of everything that was checked.

  Args:
    found: all programs.
    price: of an hour.
    population: whether they train one after another; otherwise each trial takes
      the first chip that is free.
  """
  if any(c.seconds is None for c in found):
    return 'How long it trains is not known: run this on the machine itself.'
  busy = [0.0] * (1 if population else found[0].at_once)
  for checked in found:
    for _ in range(1 if population else checked.trials):
      heapq.heapreplace(busy, busy[0] + (checked.seconds_at_once or 0.0))
  seconds = max(busy)
  hours = seconds / 3600
  told = f'all training {_time(seconds)}, {hours:.3g} h'
  if price is not None:
    told += f', at {price:g} an hour {price * hours:.2f}'
  return f'{told}; scores, checkpoints and waiting for data come on top'


def record(checked: Checked) -> dict[str, Any]:
  """The same results as numbers, for a file."""
  c, machine = checked.costs, checked.machine
  bounds = costs.bounds(c, machine, dtype=checked.config.dtype)
  return {
    'on': machine.name,
    'chips': machine.chips,
    'dataset': checked.dataset,
    'runs': checked.trials,
    'batch_per_device': checked.images,
    'steps_per_call': checked.steps_per_call,
    'compiled': _numbers(c),
    'compiled_float': checked.in_float and _numbers(checked.in_float),
    'estimated': {
      'bounds': bounds,
      'largest_batch_per_device': costs.largest_batch(
        c, machine, checked.images
      ),
      'most_runs_per_device': costs.most_runs(c, machine, checked.runs),
      'step_seconds': checked.estimated and checked.estimated[0],
      'training_seconds': None if checked.measured else checked.seconds,
    },
    'measured': {
      'step_seconds': checked.measured,
      'training_seconds': checked.seconds if checked.measured else None,
    },
  }


def _numbers(c: Costs) -> dict[str, Any]:
  program = c.program
  return {
    'compile_seconds': c.compiling,
    'state_bytes': c.state,
    'temporary_bytes': c.temporaries,
    'flops': c.flops,
    'bytes': c.bytes,
    'optimal_seconds': c.optimum,
    'cycles': sum(program.cycles.values()),
    'collectives': program.collectives,
    'collective_bytes': program.reduced,
    'kernels': dict(program.kernels),
    'operations': dict(program.operations),
  }


def _runs(checked: Checked) -> str:
  return _count(checked.trials, 'run')


def _on(checked: Checked) -> str:
  machine = checked.machine
  told = f'{machine.name}: {_count(machine.chips, "chip")}'
  if len(machine.devices) != machine.chips:
    told += f' of {len(machine.devices) // machine.chips} devices'
  told += f' ({machine.devices[0].device_kind})'
  if checked.at_once > 1:
    told += f' each, {checked.at_once} at once'
  return told if machine.here else f'{told}; nothing was run'


def _memory(checked: Checked) -> str:
  c, machine = checked.costs, checked.machine
  told = (
    f'{_size(c.memory)} a device: state and data {_size(c.state)}, '
    f'temporaries {_size(c.temporaries)}'
  )
  if machine.chip is None:
    return told
  has = machine.chip.memory * machine.share
  most = costs.largest_batch(c, machine, checked.images)
  now = f'{checked.images} images'
  if checked.runs > 1:
    most = costs.most_runs(c, machine, checked.runs)
    now = f'{checked.runs} runs'
  return (
    f'{told}, of {_size(has)}; {now} a device, and at least {most:,} fit '
    '(estimated)'
  )


def _counts(c: Costs) -> str:
  return (
    f'{c.flops / 1e9:.3g} GFLOP, {_size(c.bytes)} moved, '
    f'{sum(c.program.kernels.values()):,} kernels, '
    f'{_count(c.program.collectives, "collective")} of '
    f'{_size(c.program.reduced)}, a device'
  )


def _against(checked: Checked, in_float: Costs) -> list[str]:
  """How the quantized program differs from the same in float."""
  pairs = [
    costs.estimate(c, checked.machine, dtype=checked.config.dtype)
    for c in (checked.costs, in_float)
  ]
  here, there = checked.costs.program, in_float.program
  told = _counts(in_float)
  if pairs[0] and pairs[1]:
    told += (
      f'; quantized, a step takes {pairs[0][0] / pairs[1][0]:.2f}× as long'
    )
  lines = [f'{told} (estimated)' if pairs[0] else told]
  cost = 'cycles' if sum(here.cycles.values()) else 'bytes'
  mine, others = getattr(here, cost), getattr(there, cost)
  by_kind = {k: mine.get(k, 0) - others.get(k, 0) for k in {*mine, *others}}
  most = sorted(by_kind, key=lambda k: (-by_kind[k], k))[:_SHOWN]
  more = [
    f'{kind} {by_kind[kind]:+,} {cost} in '
    f'{here.kernels.get(kind, 0) - there.kernels.get(kind, 0):+,} kernels'
    for kind in most
    if by_kind[kind] > 0
  ]
  return (
    [*lines, 'quantized costs more in ' + '; '.join(more)] if more else lines
  )


def _run(checked: Checked) -> str:
  told = f'{checked.config.steps:,} steps'
  if checked.trials > 1:
    told = f'{checked.trials} runs of {told}, {checked.at_once} at once'
  seconds = checked.seconds
  assert seconds is not None
  kind = 'measured' if checked.measured else 'estimated'
  return f'{told}: {_time(seconds)} ({kind})'


def _count(number: int, what: str) -> str:
  return f'{number:,} {what}' + 's' * (number != 1)


def _size(size: float) -> str:
  for unit in ('B', 'KiB', 'MiB'):
    if size < 1024:
      return f'{size:.3g} {unit}'
    size /= 1024
  return f'{size:.3g} GiB'


def _time(seconds: float) -> str:
  for unit, factor in (('µs', 1e6), ('ms', 1e3)):
    if seconds * factor < 1000:
      return f'{seconds * factor:.3g} {unit}'
  if seconds < 120:
    return f'{seconds:.3g} s'
  if seconds < 7200:
    return f'{seconds / 60:.3g} min'
  return f'{seconds / 3600:,.3g} h'
