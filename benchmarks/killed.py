"""Kills runs and the workers of sweeps, and compares what they end with."""

import collections
from concurrent import futures
from pathlib import Path
import random
import shutil
import signal
import time
from typing import Any

from endured import Bench, Broken, Command, ended, STEPS

# Share of the killed runs that are killed once more when they resume.
_AGAIN = 0.25


def kill_runs(
  bench: Bench, count: int, *, jobs: int, seed: int
) -> dict[str, Any]:
  """Kills runs, resumes them, and compares their ends with an undisturbed one.

  Half of the kills come at any time between start and end; the others while a
  checkpoint is written or removed, the best one is, a network is packed or
  scored.

  Args:
    bench: where runs are made.
    count: kills.
    jobs: runs at a time.
    seed: of the moments and signals.
  """
  reference, seconds = bench.undisturbed
  kills: collections.Counter[str] = collections.Counter()
  runs, failures = 0, []

  def kill_and_resume(i: int) -> None:
    nonlocal runs
    if kills.total() >= count:
      return
    rng = random.Random(f'{seed} {i}')
    workdir = bench.folder / f'killed-{i}'
    own: list[str] = []
    try:
      while True:
        command = bench.start(workdir)
        again = len(own) == 1 and rng.random() < _AGAIN
        kill = _kill(command, workdir, seconds, rng) if not own or again else ''
        if not kill:
          command.finish()
          break
        own.append(kill)
        command.wait()
      ended(workdir).check(reference)
    except Broken as error:
      failures.append(f'{workdir.name}, {own}: {error}')
      print(failures[-1], flush=True)
    else:
      shutil.rmtree(workdir)
    runs += 1
    kills.update(own)
    print(
      f'{kills.total()} of {count} kills, {runs} ends, {len(failures)} differ',
      flush=True,
    )

  with futures.ThreadPoolExecutor(jobs) as pool:
    # An undisturbed end needs no kill: some moments come in no run.
    list(pool.map(kill_and_resume, range(2 * count)))
  return {
    'kills': kills.total(),
    'runs': runs,
    'identical_ends': runs - len(failures),
    'moments': dict(kills),
    'failures': failures,
    'seconds_of_a_run': seconds,
  }


_MOMENTS = (*['any'] * 5, 'writing', 'removing', 'best', 'packing', 'scoring')


def _kill(
  command: Command, workdir: Path, seconds: float, rng: random.Random
) -> str:
  """Kills a run; returns the moment and the signal, '' if it ended before."""
  moment = rng.choice(_MOMENTS)
  number = rng.choice((signal.SIGKILL, signal.SIGTERM))
  step = rng.randrange(2, STEPS + 1, 2)
  wait = rng.random()
  checkpoints = workdir / 'checkpoints'
  begin = time.monotonic()

  def has_come() -> bool:
    if moment == 'any':
      return time.monotonic() - begin > wait * seconds
    if moment == 'scoring':
      return 'scoring…' in command.said()
    if moment == 'packing':
      return any(workdir.glob('*generator.qgan*'))
    if moment == 'best':
      return any((checkpoints / 'best').glob('*.*'))
    ending = '.removed' if moment == 'removing' else '.orbax-checkpoint-tmp'
    return any(_step(p) >= step for p in checkpoints.glob(f'*{ending}*'))

  while not has_come():
    if not command.running():
      return ''
    time.sleep(0.001)
  # Into the middle of what has begun: of scores, which take a second; of a
  # file, which takes milliseconds.
  if moment != 'any':
    time.sleep(wait * (2 if moment == 'scoring' else 0.02))
  if not command.running():
    return ''
  command.kill(number)
  return f'{moment}, {number.name}'


def _step(path: Path) -> int:
  number = path.name.partition('.')[0]
  return int(number) if number.isdecimal() else -1
