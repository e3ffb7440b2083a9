"""Trains and delivers many trials, listed in a file, in one process."""

from pathlib import Path
import sys
import time
from typing import Any

from qgan_jax import records
from qgan_jax.config import flags as config_flags
from qgan_jax.errors import expand_home, UserError
from qgan_jax.runs.folder import config_of, differences
from qgan_jax.runs.opened import Trial
from qgan_jax.runs.shared import program_key
from qgan_jax.runs.trials import exit_when_stopped, train_and_deliver
from qgan_jax.training import devices
from qgan_jax.training.allocator import keep_freed_memory
from qgan_jax.training.checkpoints import saved_steps
from qgan_jax.training.programs import keep_programs


def read_trials(path: Path) -> list[Trial]:
  """The trials of a file, all of them validated.

  Raises:
    UserError: the file is no list of trials, a trial is wrong, or two have
      the same folder.
  """
  try:
    listed = records.read(path, records.TRIALS)
  except records.DamagedFile as error:
    raise UserError(
      f'{path} is no list of trials ({error}); a trial is an object such as '
      '{"workdir": "runs/a", "args": ["--config=mnist:bits=4"]}'
    ) from None
  if not listed:
    what = 'there is no such file' if listed is None else 'it is empty'
    raise UserError(f'{path} is no list of trials: {what}')
  if not all(trial['workdir'] for trial in listed):
    raise UserError(f'{path} is no list of trials: a workdir is empty')
  trials: list[Trial] = []
  for workdir, args in [
    (Path(expand_home(t['workdir'])), t['args']) for t in listed
  ]:
    if workdir.resolve() in {t.workdir.resolve() for t in trials if t.workdir}:
      raise UserError(f'{path}: two trials have the folder {workdir}')
    try:
      experiment = config_flags.parse_args(args)
    except UserError as error:
      raise UserError(f'{path}, {workdir}: {error}') from None
    trials.append(Trial(experiment, workdir))
  return trials


def is_finished(trial: Trial) -> bool:
  """Whether a trial's last step has been scored."""
  assert trial.workdir is not None
  try:
    scores = records.read(trial.workdir / 'scores.json', records.SCORES)
    path = trial.workdir / 'config.json'
    record = records.read(path, records.RUN)
    if not (scores and record):
      return False
    config = trial.experiment.config
    # With another config it is not this trial: `open_folder` will refuse it.
    same = not differences(config_of(record['config'], path), config)
    return same and scores['last']['step'] == config.steps
  except records.DamagedFile as error:
    print(f'{error}; the trial is not taken as finished', file=sys.stderr)
    return False


def _in_step(trials: list[Trial]) -> list[list[Trial]]:
  """Groups trials that can resume together: at a step all have saved, or 0."""
  groups: list[tuple[set[int], list[Trial]]] = []
  for trial in trials:
    assert trial.workdir is not None
    steps = set(saved_steps(trial.workdir / 'checkpoints'))
    for i, (common, group) in enumerate(groups):
      if common & steps or not (common or steps):
        groups[i] = common & steps, [*group, trial]
        break
    else:
      groups.append((steps, [trial]))
  return [group for _, group in groups]


def train_population(path: Path) -> None:
  """Trains and delivers those trials of a file that are not finished.

  Trials that can share a compiled step train side by side. Each such group is a
  program, and the programs run one after another.

  Args:
    path: of the JSON file.

  Raises:
    UserError: the file is wrong, or a trial cannot be run. The other programs
      are run first.
  """
  keep_freed_memory()
  keep_programs()
  trials = read_trials(path)
  groups: dict[Any, list[Trial]] = {}
  for trial in trials:
    if not is_finished(trial):
      groups.setdefault(program_key(trial.experiment.config), []).append(trial)
  programs = [
    together for group in groups.values() for together in _in_step(group)
  ]
  devices.spread_over_cores(min(map(len, programs), default=1))
  start = time.monotonic()
  problems: list[str] = []
  for i, group in enumerate(programs, 1):
    print(
      f'program {i} of {len(programs)}: {len(group)} trials', file=sys.stderr
    )
    try:
      with exit_when_stopped():
        train_and_deliver(group)
    except UserError as error:
      # Of several trials, each message says which one it is about.
      whose = f'{group[0].workdir}: ' if len(group) == 1 else ''
      problems += [f'{whose}{why}' for why in error.args]
  if problems:
    raise UserError(*problems)
  print(f'done in {time.monotonic() - start:.0f} s', file=sys.stderr)
