r"""Runs many trials of an experiment: on this machine, on Ray or on Slurm.

  python -m qgan_jax.sweep --config=mnist \
      --sweep='bits=1,2,3,4,6,8,32;seed=0..2'

In --sweep, `;` makes a product, `&` takes values side by side, and `a..b` is a
range. Without --sweep, the trials are those of the experiment's own `sweep`.
Settings after the experiment in --config, and every --config.KEY=VALUE, apply
to all trials. --dry_run prints the trials; each is a command that can be run
alone, with the same result. The same command again, or --resume=FOLDER, does
only what is missing.
"""

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import re
import shlex
import sys

from absl import flags

from qgan_jax import errors
from qgan_jax.config import flags as config_flags
from qgan_jax.errors import UserError
from qgan_jax.runs import sweeping
from qgan_jax.runs.plan import plan, read, Sweep


def _define_flags(argv: Sequence[str]) -> flags.FlagValues:
  values = flags.FlagValues()
  config_flags.define_flags(argv, values)
  flags.DEFINE_string(
    'sweep',
    None,
    "Values to try, such as 'bits=2,4,8;seed=0..2'.",
    flag_values=values,
  )
  errors.define_path(
    'workdir',
    "The sweep's folder; by default runs/sweep-EXPERIMENT-KEYS-HASH.",
    values,
  )
  errors.define_path(
    'resume', 'Folder of a sweep to resume, in place of --config.', values
  )
  flags.DEFINE_bool(
    'dry_run', False, 'Only prints the trials.', flag_values=values
  )
  default = sweeping.Session()
  flags.DEFINE_enum(
    'layout',
    default.layout,
    ['processes', 'population'],
    'One process for each trial, or all trials in one program.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'parallel',
    default.parallel,
    'Trials at a time; by default as many as there are GPUs, TPU chips or '
    'else cores.',
    lower_bound=1,
    upper_bound=10_000,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'cpus',
    default.cpus,
    'CPU cores of a trial; not used on this machine if it has GPUs or TPUs.',
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_float(
    'gpus',
    default.gpus,
    'GPUs of a trial; with a fraction, trials share one. By default 1 on this '
    'machine if it has GPUs, and 0 on a cluster.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_enum(
    'launcher',
    default.launcher,
    ['local', 'ray', 'slurm'],
    'Where trials run.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'ray_address',
    default.ray_address,
    "Ray cluster: HOST:PORT, ray://HOST:PORT or 'auto'. By default that of "
    'RAY_ADDRESS, or one on this machine, or else a new one.',
    flag_values=values,
  )
  flags.DEFINE_list(
    'ray_resources',
    list(default.ray_resources),
    'Other resources of the Ray cluster that a trial takes, such as TPU=4.',
    flag_values=values,
  )
  flags.DEFINE_list(
    'slurm',
    list(default.slurm),
    "Options of sbatch for a trial's job, such as partition=gpu,time=60,mem=8G "
    '(time in minutes).',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'retries',
    default.retries,
    'How often in a row a trial may crash, or lose its machine, without having '
    'written a new checkpoint.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_float(
    'grace',
    default.grace,
    'Seconds that trials have to save and end when the sweep is stopped.',
    lower_bound=0,
    upper_bound=10**9,
    flag_values=values,
  )
  return values


def _find_sweep(argv: Sequence[str], values: flags.FlagValues) -> Sweep:
  """Parses the arguments; the sweep of --resume, or that of --config."""
  if not any(re.match('--?resume', a) for a in argv):
    given = config_flags.read_flags(argv, values, __doc__)
    return plan(*given, own=values.sweep, workdir=values.workdir)
  errors.parse_flags(argv, values, __doc__)
  if not values.resume:
    raise UserError('go on with which sweep? --resume=FOLDER')
  if values.config is not None or values.sweep or values.workdir:
    raise UserError('--resume=FOLDER knows its trials: give nothing of them')
  return read(Path(values.resume))


def main(argv: Sequence[str]) -> int:
  """Runs a sweep, or prints it; see the module's docstring."""
  values = _define_flags(argv)
  sweep = _find_sweep(argv, values)
  names = [field.name for field in dataclasses.fields(sweeping.Session)]
  session = sweeping.Session(**{name: getattr(values, name) for name in names})
  sweeping.check(sweep, session)
  if values.dry_run:
    for trial in sweep.trials:
      print(sweeping.printed(sweep, trial, session))
    return 0
  command = shlex.join(['python', '-m', 'qgan_jax.sweep', *argv])
  code = sweeping.run(sweep, session, command)
  if code:
    again = [f'--resume={sweep.folder}']
    again += [values[n].serialize() for n in names if values[n].present]
    print(
      f'go on: python -m qgan_jax.sweep {shlex.join(again)}', file=sys.stderr
    )
  return code


if __name__ == '__main__':
  errors.run(main)
