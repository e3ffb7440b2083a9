"""Trains one experiment, scores it and delivers its packed generator.

  python -m qgan_jax.main --config=experiments/digits.py:bits=8

Everything goes to --workdir, runs/EXPERIMENT/CONFIG-sSEED unless given. The
same command again resumes: a run that was stopped, killed or lost its power
ends as if it had never been.
"""

import os
from pathlib import Path
import sys
import time

from absl import flags
import jax

from qgan_jax import errors
from qgan_jax.config import flags as config_flags
from qgan_jax.runs.trials import exit_when_stopped, train_and_deliver, Trial
from qgan_jax.training import devices
from qgan_jax.training.allocator import keep_freed_memory

config_flags.define_flags()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where everything goes; runs/EXPERIMENT/CONFIG-sSEED.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0, for a run of many processes.'
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'How many processes; clusters tell it by themselves.'
)
_PROCESS = flags.DEFINE_integer(
  'process', None, 'Which of them this is, from 0.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'One run over all processes of a cluster.'
)


def main() -> None:
  """Parses the command line and runs; see the module's docstring."""
  keep_freed_memory()
  experiment = config_flags.parse_flags(sys.argv)
  if _DISTRIBUTED.value or _COORDINATOR.value:
    devices.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  workdir = Path(_WORKDIR.value) if _WORKDIR.value else None
  start = time.monotonic()
  try:
    with exit_when_stopped():
      train_and_deliver([Trial(experiment, workdir)])
  except errors.UserError as error:
    if jax.process_count() == 1:
      raise
    # To leave in order is to wait for the others, who wait for this one.
    print(f'error: {error}', file=sys.stderr, flush=True)
    os._exit(2)
  devices.meet('end')  # JAX gives the others 5 minutes from here.
  print(f'done in {time.monotonic() - start:.0f} s', file=sys.stderr)


if __name__ == '__main__':
  errors.run(main)
