r"""Runs many trials of an experiment: on this machine, on Ray or on Slurm.

  python -m qgan_jax.sweep --config=experiments/mnist.py \
      --sweep='bits=1,2,3,4,6,8,32;seed=0..2'

`;` multiplies, `&` takes values side by side, `a..b` is a range; without
--sweep the experiment's own `sweep` says what is tried. What follows the file
in --config, and every --config.KEY=VALUE, holds for all trials. --dry_run
prints the trials: each is a command that can be run alone, with the same
result. The same command again, or --resume=FOLDER, does only what is missing.
"""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import re
import shlex
import sys
import time
from typing import Any

from absl import flags

from qgan_jax import errors
from qgan_jax.config import flags as config_flags
from qgan_jax.errors import UserError
from qgan_jax.launchers import base, local, process, supervisor, table
from qgan_jax.runs.plan import (
  command_of,
  open_folder,
  plan,
  read,
  Sweep,
  Trial,
)

_SWEEP = flags.DEFINE_string(
  'sweep', None, "What is tried, such as 'bits=2,4,8;seed=0..2'."
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, "The sweep's folder; runs/sweep-EXPERIMENT-KEYS-HASH."
)
_RESUME = flags.DEFINE_string(
  'resume', None, "A sweep's folder to go on with; takes no --config."
)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Prints the trials, no more.')
_LAYOUT = flags.DEFINE_enum(
  'layout',
  'processes',
  ['processes', 'population'],
  'A process for each trial, or all of them in one program.',
)
_PARALLEL = flags.DEFINE_integer(
  'parallel',
  None,
  'Trials at a time; as many as there are GPUs, TPU chips or else cores.',
  lower_bound=1,
)
_CPUS = flags.DEFINE_integer(
  'cpus', 1, 'CPU cores of a trial that has no GPU.', lower_bound=1
)
_GPUS = flags.DEFINE_float(
  'gpus',
  None,
  'GPUs of a trial; a fraction shares one. 1 on this machine if it has GPUs, '
  'and 0 on a cluster, unless given.',
  lower_bound=0,
)
_LAUNCHER = flags.DEFINE_enum(
  'launcher', 'local', ['local', 'ray', 'slurm'], 'Where trials run.'
)
_RAY_ADDRESS = flags.DEFINE_string(
  'ray_address',
  None,
  "HOST:PORT, ray://HOST:PORT or 'auto'; RAY_ADDRESS, or a cluster on this "
  'machine, or else a new one.',
)
_RAY_RESOURCES = flags.DEFINE_list(
  'ray_resources', [], 'What else a trial takes of the cluster, such as TPU=4.'
)
_SLURM = flags.DEFINE_list(
  'slurm',
  [],
  "sbatch's options for a trial's job, such as partition=gpu,time=60,mem=8G; "
  'time is in minutes.',
)
_RETRIES = flags.DEFINE_integer(
  'retries',
  3,
  'How often in a row a trial may crash, or lose its machine, without a new '
  'checkpoint.',
  lower_bound=0,
)
_GRACE = flags.DEFINE_float(
  'grace', 60.0, 'Seconds that trials have to save in when all is stopped.'
)
# Said of a session, and not of the sweep; --resume does not know them.
_SESSION = (
  _LAYOUT,
  _PARALLEL,
  _CPUS,
  _GPUS,
  _LAUNCHER,
  _RAY_ADDRESS,
  _RAY_RESOURCES,
  _SLURM,
  _RETRIES,
  _GRACE,
)


def trial_env() -> dict[str, str]:
  """Variables that are part of a trial's command.

  On a CPU the number of XLA's threads decides the last bits of sums; NPROC
  tells it, whatever machine the trial has.
  """
  if _LAUNCHER.value == 'local':
    accelerated = local.has_accelerators()
  else:
    accelerated = bool(_GPUS.value or _RAY_RESOURCES.value)
  if _LAYOUT.value == 'population' or accelerated:
    return {}
  return {'NPROC': str(_CPUS.value)}


def printed(sweep: Sweep, trial: Trial) -> str:
  """A trial's command as a person would type it."""
  variables = [f'{key}={value}' for key, value in trial_env().items()]
  return ' '.join([*variables, shlex.join(command_of(sweep, trial))])


def units_of(sweep: Sweep, layout: str) -> list[supervisor.Unit]:
  """What is handed to a launcher: each trial, or all in one program."""
  cwd = Path.cwd()
  folder = process.absolute(sweep.folder)
  statuses = [
    (
      supervisor.Status(trial.name, trial.config['steps']),
      folder / trial.name,
    )
    for trial in sweep.trials
  ]
  if layout == 'population':
    path = folder / 'population.json'
    task = base.Task(
      name='population',
      command=('python', '-m', 'qgan_jax.population', f'--trials={path}'),
      cwd=cwd,
      log=folder / 'population.log',
      lock=folder / 'population.lock',
    )
    records = [
      {'workdir': str(workdir), 'args': trial.args}
      for trial, (_, workdir) in zip(sweep.trials, statuses, strict=True)
    ]
    supervisor.write_json(path, records)
    return [supervisor.Unit(task, statuses)]
  return [
    supervisor.Unit(
      base.Task(
        name=trial.name,
        command=command_of(sweep, trial),
        cwd=cwd,
        log=workdir / 'log.txt',
        lock=workdir / 'run.lock',
        env=trial_env(),
      ),
      [(status, workdir)],
    )
    for trial, (status, workdir) in zip(sweep.trials, statuses, strict=True)
  ]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
  """Keeps other sweeps out of a folder."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / 'sweep.lock', os.O_RDWR | os.O_CREAT, 0o644)
  except OSError as error:
    raise UserError(
      f'cannot make the folder {folder}: {error.strerror}; give another '
      '--workdir'
    ) from None
  try:
    if not process.try_lock(fd):
      raise UserError(f'another sweep is at work in {folder}; wait for its end')
    yield
  finally:
    os.close(fd)


def _pairs(flag: flags.FlagHolder[Any]) -> dict[str, str]:
  """The key=value entries of a list flag."""
  pairs = [entry.partition('=') for entry in flag.value]
  for key, equals, value in pairs:
    if not (key and equals and value):
      raise UserError(f'--{flag.name}: {key + equals!r} is not key=value')
  return {key: value for key, _, value in pairs}


def make_launcher(folder: Path) -> base.Launcher:
  """The launcher that the flags ask for.

  Args:
    folder: the sweep's.

  Raises:
    UserError: there is no such launcher here, or it has not what is asked for.
  """
  parallel, cpus, gpus = _PARALLEL.value, _CPUS.value, _GPUS.value
  if gpus is not None and gpus > 1 and not gpus.is_integer():
    raise UserError(f'--gpus={gpus:g}: a whole number, or less than 1')
  if _LAUNCHER.value == 'ray':
    from qgan_jax.launchers import ray

    return ray.RayLauncher(
      address=_RAY_ADDRESS.value,
      slots=parallel,
      cpus=cpus,
      gpus=gpus or 0.0,
      resources=_ray_resources(),
      grace=_GRACE.value,
    )
  if _LAUNCHER.value == 'slurm':
    from qgan_jax.launchers import slurm

    if gpus and not gpus.is_integer():
      raise UserError(f'--gpus={gpus:g}: Slurm gives whole GPUs')
    return slurm.SlurmLauncher(
      process.absolute(folder) / 'slurm',
      slots=parallel,
      cpus=cpus,
      gpus=int(gpus or 0),
      options=_pairs(_SLURM),
      grace=_GRACE.value,
    )
  if _LAYOUT.value == 'population':
    return local.LocalLauncher([local.Place()])
  return local.LocalLauncher(
    local.find_places(
      parallel=parallel, cpus=cpus, gpus=1.0 if gpus is None else gpus
    )
  )


def _ray_resources() -> dict[str, float]:
  try:
    return {key: float(v) for key, v in _pairs(_RAY_RESOURCES).items()}
  except ValueError as error:
    raise UserError(f'--ray_resources: {error}') from None


def run(sweep: Sweep) -> int:
  """Runs what is missing of a sweep, and prints what came of it.

  Returns:
    The exit code, see `supervisor.Supervisor.run`.
  """
  start = time.monotonic()
  with _alone(sweep.folder), contextlib.ExitStack() as stack:
    session = {
      'command': shlex.join(['python', '-m', 'qgan_jax.sweep', *sys.argv[1:]]),
      'layout': _LAYOUT.value,
      'launcher': _LAUNCHER.value,
    }
    commands = [printed(sweep, trial) for trial in sweep.trials]
    open_folder(sweep, session, commands)
    where = make_launcher(sweep.folder)
    stack.callback(where.close)
    view: Any
    if sys.stderr.isatty():
      view = table.TableView(str(sweep.folder), where.slots)
    else:
      view = table.LineView(where.slots)
    care = supervisor.Supervisor(
      units_of(sweep, _LAYOUT.value),
      where,
      view,
      states=sweep.folder / 'states.json',
      retries=_RETRIES.value,
      grace=_GRACE.value,
    )
    with view:
      code = care.run()
  print(table.summary(care.statuses))
  passed = table.duration(time.monotonic() - start)
  print(f'{table.overall(care.statuses, None)}; {passed}', file=sys.stderr)
  if code:
    given = (flags.FLAGS[holder.name] for holder in _SESSION)
    again = [f'--resume={sweep.folder}']
    again += [flag.serialize() for flag in given if flag.present]
    print(
      f'go on: python -m qgan_jax.sweep {shlex.join(again)}', file=sys.stderr
    )
  return code


def main() -> None:
  """Parses the command line and runs; see the module's docstring."""
  config_flags.define_flags()
  if any(re.match('--?resume', a) for a in sys.argv):
    errors.parse_flags(sys.argv)
    if not _RESUME.value:
      raise UserError('go on with which sweep? --resume=FOLDER')
    if flags.FLAGS.config is not None or _SWEEP.value or _WORKDIR.value:
      raise UserError('--resume=FOLDER knows its trials: give nothing of them')
    sweep = read(Path(_RESUME.value))
  else:
    given = config_flags.read_flags(sys.argv)
    sweep = plan(*given, own=_SWEEP.value, workdir=_WORKDIR.value)
  if _DRY_RUN.value:
    for trial in sweep.trials:
      print(printed(sweep, trial))
    return
  code = run(sweep)
  if code:
    sys.exit(code)


if __name__ == '__main__':
  errors.run(main)
