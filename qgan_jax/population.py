r"""Trains many trials in one program, each as `qgan_jax.main` would alone.

  python -m qgan_jax.population --trials=trials.json

The file holds a JSON list with an object for each trial:

  {"workdir": "runs/a", "args": ["--config=experiments/mnist.py:bits=4"]}

`args` are the flags that `qgan_jax.main` would be given. Trials that differ
only in bit widths, seeds, learning rates, the optimizers' other arguments, the
penalty's weight or the moving average's decay share one compiled step; others
form groups that train one after another. Trials with scores are left as they
are, and the rest goes on from the newest step that its group has saved.
"""

import json
from pathlib import Path
import sys
import time
from typing import Any

from absl import flags

from qgan_jax import config as config_lib
from qgan_jax import errors
from qgan_jax.config import flags as config_flags
from qgan_jax.runs.trials import (
  exit_when_stopped,
  program_key,
  train_and_deliver,
  Trial,
)
from qgan_jax.training import devices
from qgan_jax.training.allocator import keep_freed_memory
from qgan_jax.training.checkpoints import saved_steps

_TRIALS = flags.DEFINE_string('trials', None, 'A JSON file of trials.')


def read_trials(path: Path) -> list[Trial]:
  """The trials of a file, all of them validated.

  Raises:
    UserError: the file is no list of trials, a trial is wrong, or two have
      the same folder.
  """
  try:
    records = json.loads(path.read_text())
    pairs = [
      (Path(r['workdir']), [str(arg) for arg in r['args']]) for r in records
    ]
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise errors.UserError(
      f'{path} is no list of trials ({error}); a trial is an object such as '
      '{"workdir": "runs/a", "args": ["--config=experiments/mnist.py:bits=4"]}'
    ) from None
  trials: list[Trial] = []
  for workdir, args in pairs:
    if workdir.resolve() in {t.workdir.resolve() for t in trials if t.workdir}:
      raise errors.UserError(f'{path}: two trials have the folder {workdir}')
    try:
      experiment = config_flags.parse_args(args)
    except errors.UserError as error:
      raise errors.UserError(f'{path}, {workdir}: {error}') from None
    trials.append(Trial(experiment, workdir))
  return trials


def is_finished(trial: Trial) -> bool:
  """Whether a trial's last step has been scored."""
  assert trial.workdir is not None
  try:
    scores = json.loads((trial.workdir / 'scores.json').read_text())
    record = json.loads((trial.workdir / 'config.json').read_text())
    config = trial.experiment.config
    # With another config it is not this trial, and will be refused.
    same = record['config'] == json.loads(config_lib.to_json(config))
    return same and scores['last']['step'] == config.steps
  except (OSError, ValueError, LookupError, TypeError):
    return False


def _in_step(trials: list[Trial]) -> list[list[Trial]]:
  """Trials that can go on together: from a step that all of them have saved."""
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


def main() -> None:
  """Parses the command line and trains; see the module's docstring."""
  keep_freed_memory()
  errors.parse_flags(sys.argv)
  if not _TRIALS.value:
    raise errors.UserError('say which trials: --trials=trials.json')
  trials = read_trials(Path(_TRIALS.value))
  groups: dict[Any, list[Trial]] = {}
  for trial in trials:
    if not is_finished(trial):
      groups.setdefault(program_key(trial.experiment.config), []).append(trial)
  programs = [
    together for group in groups.values() for together in _in_step(group)
  ]
  devices.spread_over_cores(min(map(len, programs), default=1))
  start = time.monotonic()
  problems = []
  for i, group in enumerate(programs, 1):
    print(
      f'program {i} of {len(programs)}: {len(group)} trials', file=sys.stderr
    )
    try:
      with exit_when_stopped():
        train_and_deliver(group)
    except errors.UserError as error:
      problems.append(str(error))
  if problems:
    raise errors.UserError('\n'.join(problems))
  print(f'done in {time.monotonic() - start:.0f} s', file=sys.stderr)


if __name__ == '__main__':
  errors.run(main)
