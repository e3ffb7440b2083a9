"""The run that `endurance.py` disturbs, and what it ends with.

What a run has left is read here without the package's own readers: arrays by
Orbax, everything else byte by byte.
"""

from collections.abc import Mapping, Sequence
import functools
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

Row = dict[str, Any]
ROOT = Path(__file__).parents[1]
STEPS = 32
# SGD with momentum: Adam's first steps are signs, which rounding errors turn.
_KEYS = {
  'model': 'small_networks',
  'source': 'folder',
  'bits': 8,
  'batch_size': 8,
  'optimizer': 'momentum',
  'learning_rate': 0.01,
  'penalty': 'none',
  'steps': STEPS,
  'log_every': 4,
  'sample_every': 16,
  'eval_every': 8,
  'checkpoint_every': 2,
  'diagnose': False,
  'logging.eval_samples': 64,
  'scores.samples': 64,
}
# Seconds: a command that takes longer hangs. Alone, a run takes ten.
_PATIENCE = 1800


class Ended(dict):
  """What a run has left, by name."""

  def check(self, reference: 'Ended') -> None:
    """Compares it with what an undisturbed run has left.

    Raises:
      Broken: something differs.
    """
    different = [
      name
      for name in sorted((self.keys() | reference.keys()) - {'metrics'})
      if self.get(name) != reference.get(name)
    ]
    if different:
      raise Broken(f'it differs in {different}')
    _check_metrics(self['metrics'], reference['metrics'])


class Bench:
  """A folder with images, caches that all runs share, and runs.

  Args:
    folder: for everything; emptied by whoever made it.
  """

  def __init__(self, folder: Path):
    self.folder = folder
    self.images = folder / 'images'
    _draw_images(self.images)
    path = [str(ROOT), str(ROOT / 'benchmarks'), os.environ.get('PYTHONPATH')]
    self.env = {
      **os.environ,
      'PYTHONPATH': os.pathsep.join(filter(None, path)),
      'JAX_PLATFORMS': 'cpu',
      # Programs are compiled once for all starts, and not optimized.
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'programs'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'QGAN_JAX_CACHE': str(folder / 'classifiers'),
      'XLA_FLAGS': '--xla_backend_optimization_level=0',
    }

  @functools.cached_property
  def undisturbed(self) -> tuple[Ended, float]:
    """(what a run ends with that nothing disturbs, its seconds).

    Its folder, `first`, stays.

    Raises:
      Broken: two of them do not end alike, so that nothing could be compared.
    """
    ends = []
    for name in ('first', 'second'):
      begin = time.monotonic()
      self.start(self.folder / name).finish()
      seconds = time.monotonic() - begin
      ends.append(ended(self.folder / name))
    ends[1].check(ends[0])
    return ends[0], seconds

  def experiment(self, **keys: Any) -> str:
    """The flag --config of the run, with further keys."""
    keys = {**_KEYS, 'dir': self.images, **keys}
    string = ','.join(f'{key}={value}' for key, value in keys.items())
    return f'--config=experiments/digits.py:{string}'

  def start(
    self,
    workdir: Path,
    *,
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
  ) -> 'Command':
    """Starts, or resumes, the run in a folder.

    Args:
      workdir: the run's folder.
      before: a command that starts another, such as `faketime -1d`.
      env: further environment variables.
    """
    return self.command(
      ['main', self.experiment(), f'--workdir={workdir}'],
      before=before,
      env=env,
    )

  def command(
    self,
    arguments: Sequence[str],
    *,
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
  ) -> 'Command':
    """Starts `python -m qgan_jax.…`; arguments as of `start`."""
    return Command(
      [*before, sys.executable, '-m', f'qgan_jax.{arguments[0]}']
      + list(arguments[1:]),
      env={**self.env, **(env or {})},
      log=self.folder / f'{time.monotonic_ns()}.log',
    )


class Command:
  """A process of the package, with what it says in a file."""

  def __init__(self, arguments: list[str], env: dict[str, str], log: Path):
    self._log = log
    with open(log, 'wb') as file:
      self.process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        start_new_session=True,
      )

  def said(self) -> str:
    """What it has printed so far."""
    return self._log.read_text(errors='replace')

  def kill(self, number: signal.Signals) -> None:
    """Sends a signal, to what it was started through, too."""
    os.killpg(self.process.pid, number)

  def running(self) -> bool:
    """Whether it has not ended yet."""
    return self.process.poll() is None

  def wait(self) -> int:
    """Its exit code; a negative number is a signal's."""
    try:
      code = self.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
      self.kill(signal.SIGKILL)
      self.process.wait()
      raise Broken(f'it hangs: {self.said()[-500:]}') from None
    if 'Traceback (most recent call last)' in self.said():
      raise Broken(f'it ended in a traceback: {self.said()[-1500:]}')
    return code

  def finish(self) -> None:
    """Waits for a good end.

    Raises:
      Broken: it ended in another way.
    """
    code = self.wait()
    if code:
      raise Broken(f'it ended with {code}: {self.said()[-500:]}')

  def refusal(self) -> str:
    """The one line that a command ends with where something is missing.

    Raises:
      Broken: it ended in another way.
    """
    code = self.wait()
    lines = [x for x in self.said().splitlines() if x.startswith('error: ')]
    if code != 2 or len(lines) != 1:
      raise Broken(f'no sentence, but {code}: {self.said()[-500:]}')
    return lines[0]


class Broken(Exception):
  """A promise was not kept; says how."""


def arrays(checkpoint: Path) -> dict[str, bytes]:
  """The arrays of a checkpoint, as Orbax itself reads them."""
  found = ocp.PyTreeCheckpointer().restore(checkpoint / 'state')
  return {dtype: np.asarray(array).tobytes() for dtype, array in found.items()}


def ended(workdir: Path) -> Ended:
  """What the run in a folder has left.

  Raises:
    Broken: something is missing, or is there twice.
  """
  whole = Ended()
  for folder in (workdir / 'checkpoints', workdir / 'checkpoints' / 'best'):
    newest = max(int(p.name) for p in folder.iterdir() if p.name.isdecimal())
    whole[f'{folder.name}/step'] = newest
    whole[folder.name] = arrays(folder / str(newest))
  if whole['checkpoints/step'] != STEPS:
    raise Broken(f'the newest checkpoint is {whole["checkpoints/step"]}')
  files = ['generator.qgan', 'scores.json', 'precision.json']
  files += [f'samples/step_{step:07}.png' for step in (16, 32)]
  whole |= {name: (workdir / name).read_bytes() for name in files}
  whole['metrics'] = _metrics(workdir / 'metrics.jsonl')
  return whole


def _metrics(path: Path) -> list[Row]:
  """Its rows without the rates, which are times.

  Raises:
    Broken: a row is there twice, or they are not in order.
  """
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows:
    row.pop('steps_per_second', None)
  kinds = [(row['step'], *row) for row in rows]
  steps = [row['step'] for row in rows]
  if len(kinds) != len(set(kinds)) or steps != sorted(steps):
    raise Broken(f'steps are in {path} twice, or not in order')
  return rows


def _check_metrics(rows: list[Row], reference: list[Row]) -> None:
  """Rows are the same, but for those that a stop by SIGTERM has added.

  A run that is asked to stop logs the means of the steps since its last row.
  When it goes on, its next row holds the means of the rest: together they are
  what an undisturbed run logs.

  Raises:
    Broken: they are not.
  """
  found, wanted = (
    {
      kind: [row for row in all_ if ('d_loss' in row) == kind]
      for kind in (0, 1)
    }
    for all_ in (rows, reference)
  )
  same = found[0] == wanted[0]
  begin = 0
  for row in wanted[1]:
    end = row['step']
    parts = [part for part in found[1] if begin < part['step'] <= end]
    if parts != [row]:
      ends = [part['step'] for part in parts]
      counts = np.diff([begin, *ends])
      same &= len(parts) > 1 and ends[-1] == end
      same &= all(
        np.isclose(
          np.average([p[name] for p in parts], weights=counts), row[name]
        )
        for name in row.keys() - {'step', 'dataset'}
      )
    begin = end
  if not same:
    raise Broken('its metrics differ')


def _draw_images(folder: Path) -> None:
  """400 grey images of two classes: waves at an angle, with noise."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:28, :28] / 28
  for name, angle in (('flat', 0.2), ('steep', 1.2)):
    (folder / name).mkdir(parents=True)
    for i in range(200):
      wave = np.sin(9 * (x * np.cos(angle) + y * np.sin(angle)) + rng.random())
      noisy = 127.5 + 90 * wave + 20 * rng.standard_normal((28, 28))
      pixels = np.clip(noisy, 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{i:03}.png')
