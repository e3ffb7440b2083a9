r"""Runs many trials of an experiment: on this machine, on Ray or on Slurm.

  python -m qgan_jax.sweep --config=experiments/mnist.py \
      --sweep='bits=1,2,3,4,6,8,32;seed=0..2'

`;` multiplies, `&` takes values side by side, `a..b` is a range; without
--sweep the experiment's own `sweep` says what is tried. What follows the file
in --config, and every --config.KEY=VALUE, holds for all trials. --dry_run
prints the trials: each is a command that can be run alone, with the same
result. The same command again, or --resume=FOLDER, does only what is missing.
"""

from collections.abc import Iterator, Sequence
import contextlib
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
import platform
import re
import shlex
import sys
import time
from typing import Any, NamedTuple

from absl import flags

from qgan_jax import config as config_lib
from qgan_jax import config_flags, config_string, errors, sweep_string
from qgan_jax.errors import UserError
from qgan_jax.launchers import base, local, process, supervisor, table

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

_UNSAFE = re.compile(r'[^A-Za-z0-9=,._+-]')
_LONGEST_NAME = 150


class Trial(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: what is its own in the config string; its folder's name, too.
    args: the flags of `qgan_jax.main`, but for --workdir.
    config: resolved, as JSON can hold it.
  """

  name: str
  args: tuple[str, ...]
  config: dict[str, Any]


class Sweep(NamedTuple):
  """What is to be done.

  Attributes:
    folder: where everything goes.
    trials: all of them.
    origin: where the trials come from, for people.
  """

  folder: Path
  trials: list[Trial]
  origin: dict[str, Any]


def plan(argv: Sequence[str]) -> Sweep:
  """The trials of a command line; each is validated as it would be alone.

  Raises:
    UserError: one of them could not be run, or two are the same.
  """
  file, arg, overrides = config_flags.read_flags(argv)
  own = _SWEEP.value
  strings = own_sweep(file) if own is None else sweep_string.expand(own)
  varied = {
    config_string.SHORT_NAMES.get(key, key)
    for string in strings
    for key in config_lib.parse(string)
  }
  clash = next((path for path in overrides if path in varied), None)
  if clash:
    raise UserError(
      f'--config.{clash} would hold for every trial, and the sweep sets it, '
      'too; leave one of them out'
    )
  # The trials are compared with each other, so all have the same data.
  overrides.setdefault('data.standin', False)
  rest = [f'--config.{path}={value}' for path, value in overrides.items()]
  trials: list[Trial] = []
  known: dict[str, str] = {}
  for string in strings:
    whole = ','.join(filter(None, (arg, string)))
    args = (f'--config={file}:{whole}' if whole else f'--config={file}', *rest)
    try:
      config = config_flags.parse_args(args).config
    except UserError as error:
      raise UserError(f'trial {string!r}: {error}') from None
    text = config_lib.to_json(config)
    if text in known:
      raise UserError(
        f'the trials {known[text]!r} and {string!r} are the same; keep one'
      )
    known[text] = string
    trials.append(Trial(_name(string), args, json.loads(text)))
  if _WORKDIR.value:
    folder = Path(_WORKDIR.value)
  else:
    keys = dict.fromkeys(k for s in strings for k in config_lib.parse(s))
    digest = hashlib.sha256(
      '\n'.join(shlex.join(trial.args) for trial in trials).encode()
    )
    experiment = trials[0].config['experiment']
    name = f'sweep-{experiment}-{",".join(keys)}'[:_LONGEST_NAME]
    folder = Path('runs', f'{name}-{digest.hexdigest()[:8]}')
  origin = {'file': file, 'arg': arg, 'sweep': own, 'overrides': overrides}
  return Sweep(folder, trials, origin)


def own_sweep(file: str) -> list[str]:
  """The config strings that an experiment's `sweep` adds.

  Raises:
    UserError: it has none, or adds none.
  """
  spec = importlib.util.spec_from_file_location('experiment', file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  strings: list[str] = []
  if hasattr(module, 'sweep'):
    module.sweep(strings.append)
  if not strings:
    raise UserError(
      f"{file} says nothing of a sweep; say --sweep='bits=2,4,8;seed=0..2'"
    )
  return strings


def _name(string: str) -> str:
  """A name for people and for a folder; different strings differ in it."""
  string = ','.join(part.strip() for part in string.split(','))
  name = _UNSAFE.sub('_', string)[:_LONGEST_NAME]
  if name != string:
    name += f'~{hashlib.sha256(string.encode()).hexdigest()[:8]}'
  return name


def read(folder: Path) -> Sweep:
  """The sweep that a folder holds.

  Raises:
    UserError: it holds none.
  """
  try:
    record = json.loads((folder / 'sweep.json').read_text())
    trials = [
      Trial(t['name'], tuple(t['args']), t['config']) for t in record['trials']
    ]
    return Sweep(folder, trials, record['origin'])
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise UserError(f'{folder} is not the folder of a sweep: {error}') from None


def open_folder(sweep: Sweep) -> None:
  """Records what the sweep is, or makes sure that it is the same as before.

  Raises:
    UserError: the folder holds another sweep, with what differs, or cannot be
      written.
  """
  path = sweep.folder / 'sweep.json'
  record: dict[str, Any] = {
    'origin': sweep.origin,
    'trials': [
      trial._asdict()
      | {
        'workdir': trial.name,
        'command': printed(sweep, trial),
      }
      for trial in sweep.trials
    ],
    'sessions': [],
  }
  if path.exists():
    lines = _diff(read(sweep.folder).trials, sweep.trials)
    if lines:
      raise UserError(
        f'{sweep.folder} holds another sweep; take another --workdir. What '
        'differs:\n  ' + '\n  '.join(lines)
      )
    record['sessions'] = json.loads(path.read_text()).get('sessions', [])
  record['sessions'].append(
    {
      'started': _now(),
      'command': shlex.join(['python', '-m', 'qgan_jax.sweep', *sys.argv[1:]]),
      'layout': _LAYOUT.value,
      'launcher': _LAUNCHER.value,
      'host': platform.node(),
      'versions': _versions(),
    }
  )
  supervisor.write_json(path, record)


def _diff(old: Sequence[Trial], new: Sequence[Trial]) -> list[str]:
  before = {trial.name: trial.config for trial in old}
  after = {trial.name: trial.config for trial in new}
  lines = [f'- {name}' for name in before if name not in after]
  lines += [f'+ {name}' for name in after if name not in before]
  for name in before.keys() & after.keys():
    found: Any = config_lib.diff(before[name], after[name])
    lines += [f'{name}: {line}' for line in found]
  return lines


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def _versions() -> dict[str, str]:
  names = ('qgan_jax', 'jax', 'jaxlib', 'flax')
  return {'python': platform.python_version()} | {
    name: importlib.metadata.version(name) for name in names
  }


def command_of(sweep: Sweep, trial: Trial) -> tuple[str, ...]:
  """The command that a trial is."""
  workdir = sweep.folder / trial.name
  return (
    'python', '-m', 'qgan_jax.main', *trial.args, f'--workdir={workdir}'
  )  # fmt: skip


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
    open_folder(sweep)
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
    print(
      f'go on: python -m qgan_jax.sweep --resume={sweep.folder}',
      file=sys.stderr,
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
    sweep = plan(sys.argv)
  if _DRY_RUN.value:
    for trial in sweep.trials:
      print(printed(sweep, trial))
    return
  code = run(sweep)
  if code:
    sys.exit(code)


if __name__ == '__main__':
  errors.run(main)
