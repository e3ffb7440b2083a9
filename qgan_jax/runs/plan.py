"""The trials of a sweep, and the folder that records them.

Every trial is validated in the same way as a single run, before any is started.
"""

from collections.abc import Mapping, Sequence
import datetime
import hashlib
import json
from pathlib import Path
import platform
import re
import shlex
from typing import Any, NamedTuple

from qgan_jax import config as config_lib
from qgan_jax import records
from qgan_jax.config import experiments, grammar, sweep_grammar
from qgan_jax.config import flags as config_flags
from qgan_jax.config.keys import SHORT_NAMES
from qgan_jax.errors import UserError
from qgan_jax.runs import folder as run_folder

_UNSAFE = re.compile(r'[^A-Za-z0-9=,._+-]')
_LONGEST_NAME = 150


class PlannedTrial(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: the part of the config string that is its own; also its folder.
    args: the flags of `qgan_jax.main`, without --workdir.
    config: resolved, in a form that JSON can hold.
  """

  name: str
  args: tuple[str, ...]
  config: dict[str, Any]


class Sweep(NamedTuple):
  """The trials of a sweep and their folder.

  Attributes:
    folder: holds a folder for each trial.
    trials: all of them.
    origin: the values of the command line that give the trials, for readers.
  """

  folder: Path
  trials: list[PlannedTrial]
  origin: dict[str, Any]


def plan(
  file: str,
  arg: str,
  overrides: Mapping[str, Any],
  *,
  own: str | None,
  workdir: str | None,
) -> Sweep:
  """The trials of a command line, validated in the same way as single runs.

  Args:
    file: the experiment's file.
    arg: the config string that all trials share.
    overrides: values that all trials share, by path.
    own: the value of --sweep; None for the experiment's own sweep.
    workdir: the sweep's folder; None for one that is named after the sweep.

  Raises:
    UserError: a trial could not be run, or two are the same.
  """
  strings = own_sweep(file) if own is None else sweep_grammar.expand(own)
  varied = {
    SHORT_NAMES.get(key, key)
    for string in strings
    for key in grammar.parse(string)
  }
  clash = next((path for path in overrides if path in varied), None)
  if clash:
    raise UserError(
      f'--config.{clash} would hold for every trial, and the sweep sets it, '
      'too; leave one of them out'
    )
  # Trials are compared with each other, so none may train on stand-in data.
  if not any('standin=' in string for string in (arg, *strings)):
    overrides = {'data.standin': False, **overrides}
  rest = [f'--config.{path}={value}' for path, value in overrides.items()]
  trials: list[PlannedTrial] = []
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
    trials.append(PlannedTrial(_name(string), args, json.loads(text)))
  if workdir:
    folder = Path(workdir)
  else:
    keys = dict.fromkeys(k for s in strings for k in grammar.parse(s))
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
    UserError: it has no `sweep`, or one that adds nothing.
  """
  module = experiments.load(file)
  strings: list[str] = []
  if hasattr(module, 'sweep'):
    with experiments.explained(file):
      module.sweep(strings.append)
  if not all(type(string) is str for string in strings):
    raise UserError(f"{file}: sweep(add) adds config strings, 'bits=8,seed=0'")
  if not strings:
    raise UserError(
      f"{file} has no sweep of its own; give --sweep='bits=2,4,8;seed=0..2'"
    )
  return strings


def _name(string: str) -> str:
  """A readable name for a folder; different strings get different ones."""
  string = ','.join(part.strip() for part in string.split(','))
  name = _UNSAFE.sub('_', string)[:_LONGEST_NAME]
  if name != string:
    name += f'~{hashlib.sha256(string.encode()).hexdigest()[:8]}'
  return name or 'defaults'  # A sweep may add '' to compare with.


def read(folder: Path) -> Sweep:
  """The sweep that a folder holds.

  Raises:
    UserError: it holds none, or one that this version cannot read.
  """
  path = folder / 'sweep.json'
  record = records.read(path, records.SWEEP)
  if record is None:
    raise UserError(
      f'{folder} is not the folder of a sweep: it has no sweep.json'
    )
  trials = []
  for t in record['trials']:
    # In the form of this version: an earlier one may have written it.
    config = config_lib.to_json(run_folder.config_of(t['config'], path))
    trials.append(PlannedTrial(t['name'], tuple(t['args']), json.loads(config)))
  return Sweep(folder, trials, record['origin'])


def open_folder(
  sweep: Sweep, session: Mapping[str, Any], commands: Sequence[str]
) -> None:
  """Records what the sweep is, or checks that it is the same as before.

  Args:
    sweep: what is to be done.
    session: how the sweep is run this time, for the record.
    commands: commands of the trials, as a user would type them.

  Raises:
    UserError: the folder holds another sweep (the message lists the
      differences), or cannot be written.
  """
  path = sweep.folder / 'sweep.json'
  record: dict[str, Any] = {
    'origin': sweep.origin,
    'trials': [
      trial._asdict() | {'workdir': trial.name, 'command': command}
      for trial, command in zip(sweep.trials, commands, strict=True)
    ],
    'sessions': [],
  }
  if path.exists():
    lines = _diff(read(sweep.folder).trials, sweep.trials)
    if lines:
      raise UserError(
        f'{sweep.folder} holds another sweep; take another --workdir. What '
        f'differs: {"; ".join(lines)}'
      )
    before = records.read(path, records.SWEEP)
    record['sessions'] = before.get('sessions', [])
  started = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  record['sessions'].append(
    {
      'started': started,
      **session,
      'host': platform.node(),
      'versions': run_folder.versions(),
    }
  )
  records.write_json(path, record)


def _diff(
  old: Sequence[PlannedTrial], new: Sequence[PlannedTrial]
) -> list[str]:
  before = {trial.name: trial.config for trial in old}
  after = {trial.name: trial.config for trial in new}
  lines = [f'- {name}' for name in before if name not in after]
  lines += [f'+ {name}' for name in after if name not in before]
  for name in before:
    if name in after:
      found = run_folder.differences(before[name], after[name])
      lines += [f'{name}: {line}' for line in found]
  return lines


def command_of(sweep: Sweep, trial: PlannedTrial) -> tuple[str, ...]:
  """The command that runs a trial."""
  workdir = sweep.folder / trial.name
  return (
    'python', '-m', 'qgan_jax.main', *trial.args, f'--workdir={workdir}'
  )  # fmt: skip
