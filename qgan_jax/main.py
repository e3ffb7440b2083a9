"""Trains one experiment, scores it and packs its generator into a file.

  python -m qgan_jax.main --config=digits:bits=8

All files go to --workdir, by default runs/EXPERIMENT/CONFIG-sSEED. If a run was
stopped or killed, or the machine lost its power, the same command resumes it,
and it ends as if it had not been interrupted.
"""

from collections.abc import Sequence
import os
from pathlib import Path
import sys
import time

from absl import flags
import jax

from qgan_jax import errors
from qgan_jax.config import flags as config_flags
from qgan_jax.runs.opened import Trial
from qgan_jax.runs.trials import exit_when_stopped, train_and_deliver
from qgan_jax.training import devices
from qgan_jax.training.allocator import keep_freed_memory
from qgan_jax.training.programs import keep_programs


def main(argv: Sequence[str]) -> None:
  """Trains; see the module's docstring."""
  keep_freed_memory()
  keep_programs()
  values = flags.FlagValues()
  config_flags.define_flags(argv, values)
  errors.define_path(
    'workdir',
    "The run's folder; by default runs/EXPERIMENT/CONFIG-sSEED.",
    values,
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of process 0, for a run of several processes.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'processes',
    None,
    'Number of processes; on a cluster that JAX knows, it need not be given.',
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'process',
    None,
    'Number of this process, counted from 0.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_bool(
    'distributed',
    False,
    'Trains one run with all processes of a cluster.',
    flag_values=values,
  )
  experiment = config_flags.parse_flags(argv, values, __doc__)
  _check_processes(values)
  if values.distributed or values.coordinator:
    devices.join(values.coordinator, values.processes, values.process)
  workdir = Path(values.workdir) if values.workdir else None
  start = time.monotonic()
  try:
    with exit_when_stopped():
      train_and_deliver([Trial(experiment, workdir)])
  except errors.UserError as error:
    if jax.process_count() == 1:
      raise
    # A clean exit would wait in JAX's shutdown barrier for the other
    # processes, and those wait for this one.
    print(f'error: {error}', file=sys.stderr, flush=True)
    os._exit(2)
  # Without a limit: JAX's own barrier at exit gives up after 5 minutes.
  devices.meet('end')
  print(f'done in {time.monotonic() - start:.0f} s', file=sys.stderr)


def _check_processes(values: flags.FlagValues) -> None:
  """Refuses flags of a run of many processes that do not fit together."""
  count, number = values.processes, values.process
  if (count, number) != (None, None):
    if not (values.distributed or values.coordinator):
      raise errors.UserError(
        '--processes and --process need --coordinator=HOST:PORT'
      )
    if None not in (count, number) and number >= count:
      raise errors.UserError(
        f'--process={number} of --processes={count}: they count from 0'
      )
  if values.coordinator:
    host, _, port = values.coordinator.rpartition(':')
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
      raise errors.UserError(
        f'--coordinator={values.coordinator}: give HOST:PORT of process 0, '
        'such as node1:1234'
      )


if __name__ == '__main__':
  errors.run(main)
