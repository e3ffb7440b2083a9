"""Kills the workers of sweeps, and a sweep itself: no trial may be lost."""

import contextlib
import os
from pathlib import Path
import random
import signal
import time
from typing import Any

from endured import Bench, Broken, Command, ended

_TRIALS = 3


def kill_workers(bench: Bench, count: int, seed: int) -> dict[str, Any]:
  """Kills workers of a local and of a Ray sweep at random moments.

  Every trial has to end as in a local sweep that nothing disturbs.

  Args:
    bench: where runs are made.
    count: kills of workers, of each sweep; as many as come before its end.
    seed: of moments and signals.
  """
  record: dict[str, Any] = {'trials': _TRIALS, 'failures': []}
  undisturbed = bench.folder / 'undisturbed'
  _start(bench, undisturbed, 'local').finish()
  references = {path.name: ended(path) for path in _trials(undisturbed)}
  for launcher in ('local', 'ray'):
    rng = random.Random(f'{seed} {launcher}')
    folder = bench.folder / launcher
    kills = {'workers': 0, 'sweep': 0}
    try:
      while True:
        command = _start(bench, folder, launcher)
        if not _disturb(command, folder, kills, count, rng):
          break
        command.wait()
      command.finish()
      for path in _trials(folder):
        ended(path).check(references[path.name])
    except Broken as error:
      record['failures'].append(f'{launcher}: {error}')
    record[launcher] = {'kills': kills, 'ended': len(_trials(folder))}
    print(launcher, record[launcher], record['failures'], flush=True)
  return record


def _start(bench: Bench, folder: Path, launcher: str) -> Command:
  return bench.command([
    'sweep', bench.experiment(), f'--sweep=seed=0..{_TRIALS - 1}',
    f'--workdir={folder}', f'--launcher={launcher}', '--parallel=2',
    '--retries=20',
  ])  # fmt: skip


def _trials(folder: Path) -> list[Path]:
  """The folders of trials that have left scores."""
  return sorted(path.parent for path in folder.glob('*/scores.json'))


def _disturb(
  command: Command,
  folder: Path,
  kills: dict[str, int],
  count: int,
  rng: random.Random,
) -> bool:
  """Kills workers until the sweep ends; True if it killed the sweep itself."""
  while command.running():
    time.sleep(rng.uniform(1, 15))
    workers = [
      pid
      for pid, line in _descendants(command.process.pid).items()
      if str(folder) in line and 'qgan_jax.main' in line or 'ray::_run' in line
    ]
    if workers and kills['workers'] < count:
      number = rng.choice((signal.SIGKILL, signal.SIGTERM))
      with contextlib.suppress(ProcessLookupError):  # It has just ended.
        os.kill(rng.choice(workers), number)
        kills['workers'] += 1
    # Once, in the middle: the next session goes on. Ray ends with it.
    if kills['workers'] >= count // 2 and not kills['sweep']:
      kills['sweep'] += 1
      command.process.send_signal(signal.SIGKILL)
      return True
  return False


def _descendants(root: int) -> dict[int, str]:
  """Command lines of all processes below one, by number."""
  parents, lines = {}, {}
  for path in Path('/proc').glob('[0-9]*'):
    try:
      # Behind the name, which may hold anything: the state, then the parent.
      stat = (path / 'stat').read_text().rpartition(')')[2].split()
      lines[int(path.name)] = (path / 'cmdline').read_text().replace('\0', ' ')
      parents[int(path.name)] = int(stat[1])
    except (OSError, ValueError):
      continue
  found: dict[int, str] = {}
  for pid in parents:
    above = pid
    while above in parents and above != root:
      above = parents[above]
    if above == root and pid != root:
      found[pid] = lines.get(pid, '')
  return found
