"""Runs the trials of a sweep with a launcher, each by its own command."""

from collections.abc import Sequence
import contextlib
import dataclasses
from pathlib import Path
import shlex
import sys
import time
from typing import Any

from ml_collections import FrozenConfigDict

from qgan_jax import records
from qgan_jax.errors import UserError
from qgan_jax.launchers import base, local, process, supervisor, table
from qgan_jax.runs import inputs
from qgan_jax.runs.plan import command_of, open_folder, PlannedTrial, Sweep


@dataclasses.dataclass(frozen=True)
class Session:
  """How a sweep is run this time: the flags of `qgan_jax.sweep`.

  They hold for one call of the command. They do not define the sweep, and
  `--resume` does not read them from its folder.

  Attributes:
    layout: 'processes', one for each trial, or 'population', all in one.
    parallel: number of trials at a time; None for as many as fit.
    cpus: CPU cores of a trial that has no GPU.
    gpus: GPUs of a trial; None for 1 on this machine if it has GPUs, and
      otherwise none.
    launcher: where trials run: 'local', 'ray' or 'slurm'.
    ray_address: of a Ray cluster; None for the one that Ray finds or starts.
    ray_resources: further resources of the cluster for each trial, as
      'NAME=NUMBER'.
    slurm: options of a trial's job, each 'NAME=VALUE'.
    retries: how often in a row a trial may crash, or lose its machine, without
      a new checkpoint.
    grace: seconds that trials have for saving when the sweep is stopped.
  """

  layout: str = 'processes'
  parallel: int | None = None
  cpus: int = 1
  gpus: float | None = None
  launcher: str = 'local'
  ray_address: str | None = None
  ray_resources: Sequence[str] = ()
  slurm: Sequence[str] = ()
  retries: int = 3
  grace: float = 60.0


def trial_env(session: Session) -> dict[str, str]:
  """Environment variables that are part of a trial's command.

  On a CPU, the number of XLA's threads decides the last bits of sums. NPROC
  sets it, so that a trial's results do not depend on the machine's size.
  """
  if session.launcher == 'local':
    accelerated = local.has_accelerators()
  else:
    accelerated = bool(session.gpus or session.ray_resources)
  if session.layout == 'population' or accelerated:
    return {}
  return {'NPROC': str(session.cpus)}


def printed(sweep: Sweep, trial: PlannedTrial, session: Session) -> str:
  """A trial's command as a user would type it."""
  variables = [f'{key}={value}' for key, value in trial_env(session).items()]
  return ' '.join([*variables, shlex.join(command_of(sweep, trial))])


def units_of(sweep: Sweep, session: Session) -> list[supervisor.Unit]:
  """The jobs for a launcher: one for each trial, or one for all of them."""
  cwd = Path.cwd()
  folder = process.absolute(sweep.folder)
  statuses = [
    (
      supervisor.Status(trial.name, trial.config['steps']),
      folder / trial.name,
    )
    for trial in sweep.trials
  ]
  if session.layout == 'population':
    path = folder / 'population.json'
    task = base.Task(
      name='population',
      command=('python', '-m', 'qgan_jax.population', f'--trials={path}'),
      cwd=cwd,
      log=folder / 'population.log',
      lock=folder / 'population.lock',
    )
    listed = [
      {'workdir': str(workdir), 'args': trial.args}
      for trial, (_, workdir) in zip(sweep.trials, statuses, strict=True)
    ]
    records.write_json(path, listed)
    return [supervisor.Unit(task, statuses)]
  return [
    supervisor.Unit(
      base.Task(
        name=trial.name,
        command=command_of(sweep, trial),
        cwd=cwd,
        log=workdir / 'log.txt',
        lock=workdir / records.LOCK,
        env=trial_env(session),
      ),
      [(status, workdir)],
    )
    for trial, (status, workdir) in zip(sweep.trials, statuses, strict=True)
  ]


def make_launcher(folder: Path, session: Session) -> base.Launcher:
  """The launcher of a session.

  Args:
    folder: the sweep's.
    session: names the launcher, and the resources of each trial.

  Raises:
    UserError: the launcher's library is not installed, it cannot provide what
      is asked for, or has no use for it.
  """
  for flag, name in (
    ('ray_address', 'ray'), ('ray_resources', 'ray'), ('slurm', 'slurm')
  ):  # fmt: skip
    if getattr(session, flag) and session.launcher != name:
      raise UserError(f'--{flag} needs --launcher={name}')
  gpus = session.gpus
  if gpus is not None and gpus > 1 and not gpus.is_integer():
    raise UserError(f'--gpus={gpus:g}: a whole number, or less than 1')
  if session.launcher == 'ray':
    from qgan_jax.launchers import ray

    return ray.RayLauncher(
      address=session.ray_address,
      slots=session.parallel,
      cpus=session.cpus,
      gpus=gpus or 0.0,
      resources=_ray_resources(session),
      grace=session.grace,
    )
  if session.launcher == 'slurm':
    from qgan_jax.launchers import slurm

    if gpus and not gpus.is_integer():
      raise UserError(f'--gpus={gpus:g}: Slurm gives whole GPUs')
    return slurm.SlurmLauncher(
      process.absolute(folder) / 'slurm',
      slots=session.parallel,
      cpus=session.cpus,
      gpus=int(gpus or 0),
      options=_pairs('slurm', session.slurm),
      grace=session.grace,
    )
  if session.layout == 'population':
    if session.parallel or gpus is not None:
      raise UserError(
        '--layout=population trains all trials at once, on all devices of '
        'this machine: leave out --parallel and --gpus'
      )
    return local.LocalLauncher([local.Place()])
  return local.LocalLauncher(
    local.find_places(parallel=session.parallel, cpus=session.cpus, gpus=gpus)
  )


def check(sweep: Sweep, session: Session) -> None:
  """Checks that the inputs of unfinished trials exist on this machine.

  Trials on a cluster check this themselves, since their inputs need not be
  here.

  Raises:
    UserError: something is missing.
  """
  if session.launcher == 'local':
    inputs.check_for_training(
      FrozenConfigDict(trial.config)
      for trial in sweep.trials
      if not (sweep.folder / trial.name / 'scores.json').exists()
    )


def _ray_resources(session: Session) -> dict[str, float]:
  pairs = _pairs('ray_resources', session.ray_resources)
  for key, value in pairs.items():
    try:
      usable = 0 < float(value) < float('inf')
    except ValueError:
      usable = False
    if not usable:
      raise UserError(f'--ray_resources: {key}={value} is no number above 0')
  return {key: float(value) for key, value in pairs.items()}


def _pairs(flag: str, entries: Sequence[str]) -> dict[str, str]:
  """The key=value entries of a flag's list."""
  pairs = [entry.partition('=') for entry in entries]
  for key, equals, value in pairs:
    if not (key and equals and value):
      raise UserError(f'--{flag}: {key + equals!r} is not key=value')
  return {key: value for key, _, value in pairs}


def run(sweep: Sweep, session: Session, command: str) -> int:
  """Runs the unfinished trials of a sweep, and prints a summary.

  Args:
    sweep: its trials, and its folder.
    session: how they are run.
    command: the command line, recorded in `sweep.json`.

  Returns:
    The exit code, see `supervisor.Supervisor.run`.
  """
  start = time.monotonic()
  with contextlib.ExitStack() as stack:
    # Before there is a folder: what the launcher cannot give is refused.
    where = make_launcher(sweep.folder, session)
    stack.callback(where.close)
    stack.enter_context(
      records.alone(
        sweep.folder,
        lock='sweep.lock',
        occupied='another sweep is at work in {}; wait for its end',
      )
    )
    record = {
      'command': command,
      'layout': session.layout,
      'launcher': session.launcher,
    }
    commands = [printed(sweep, trial, session) for trial in sweep.trials]
    open_folder(sweep, record, commands)
    view: Any
    if sys.stderr.isatty():
      view = table.TableView(str(sweep.folder), where.slots)
    else:
      view = table.LineView(where.slots)
    care = supervisor.Supervisor(
      units_of(sweep, session),
      where,
      view,
      states=sweep.folder / 'states.json',
      retries=session.retries,
      grace=session.grace,
    )
    with view:
      code = care.run()
  print(table.summary(care.statuses))
  passed = table.duration(time.monotonic() - start)
  print(f'{table.overall(care.statuses, None)}; {passed}', file=sys.stderr)
  return code
