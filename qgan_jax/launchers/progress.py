"""How far a trial is, read from its run folder, whatever launched it."""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from qgan_jax import records

_QUICK_SCORE = 'eval/frechet_distance_train'
_SCORES = ('fid', 'frechet_distance')


@dataclasses.dataclass
class Progress:
  """What a run folder tells.

  Attributes:
    step: steps done, as far as they are logged.
    rate: steps per second, or None.
    quick: the best distance to training images so far, or None.
    score: the best checkpoint's distance to held-out images, once the run is
      complete, or None.
    done: whether the run is complete.
    damage: what is wrong with its scores, or ''.
  """

  step: int = 0
  rate: float | None = None
  quick: float | None = None
  score: float | None = None
  done: bool = False
  damage: str = ''


class Reader:
  """Reads a run folder repeatedly, each line of its metrics once."""

  def __init__(self, workdir: Path):
    """Reads nothing yet.

    Args:
      workdir: the run's folder, which need not be there.
    """
    self._workdir = workdir
    self._progress = Progress()
    self._file: tuple[int, int] = (0, 0)  # Its inode, and the bytes read.

  def read(self) -> Progress:
    """What is there now."""
    if not self._progress.done:
      self._read_metrics()
      try:
        scores = records.read(self._workdir / 'scores.json', records.SCORES)
        self._progress.damage = ''
      except records.DamagedFile as error:
        scores, self._progress.damage = None, str(error)
      # Scores are the last thing that a run writes.
      if scores is not None:
        best = scores['best']
        found = (best.get(name) for name in _SCORES)
        self._progress.score = float(next(x for x in found if x is not None))
        self._progress.done = True
    return self._progress

  def checkpoint(self) -> int:
    """The newest checkpoint's step; -1 for none."""
    try:
      names = os.listdir(self._workdir / 'checkpoints')
    except OSError:
      return -1
    return max((int(n) for n in names if n.isdecimal()), default=-1)

  def _read_metrics(self) -> None:
    inode, position = self._file
    path = self._workdir / 'metrics.jsonl'
    if not path.is_file():
      return
    try:
      with open(path, 'rb') as file:
        status = os.fstat(file.fileno())
        # A run that resumes writes its file anew.
        if status.st_ino != inode or status.st_size < position:
          position, self._progress = 0, Progress()
        file.seek(position)
        new = file.read()
    except OSError:
      return
    complete = new[: new.rfind(b'\n') + 1]
    self._file = status.st_ino, position + len(complete)
    for line in complete.splitlines():
      try:
        self._take(records.metrics_row(line))
      except ValueError:
        continue  # The report says which lines are damaged.

  def _take(self, row: dict[str, Any]) -> None:
    progress = self._progress
    progress.step = row['step']
    progress.rate = row.get('steps_per_second', progress.rate)
    quick = row.get(_QUICK_SCORE, math.nan)
    if math.isfinite(quick):
      known = progress.quick
      progress.quick = quick if known is None else min(known, quick)
