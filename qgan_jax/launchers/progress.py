"""How far a trial is, read from its run folder, whatever launched it."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

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
  """

  step: int = 0
  rate: float | None = None
  quick: float | None = None
  score: float | None = None
  done: bool = False


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
      scores = self._scores()
      # Scores are the last thing that a run writes.
      if scores is not None:
        best = scores.get('best', {})
        found = (best.get(name) for name in _SCORES)
        score = next((x for x in found if x is not None), None)
        self._progress.score = None if score is None else float(score)
        self._progress.done = True
    return self._progress

  def checkpoint(self) -> int:
    """The newest checkpoint's step; -1 for none."""
    try:
      names = os.listdir(self._workdir / 'checkpoints')
    except OSError:
      return -1
    return max((int(n) for n in names if n.isdecimal()), default=-1)

  def _scores(self) -> dict[str, Any] | None:
    try:
      return json.loads((self._workdir / 'scores.json').read_text())
    except (OSError, ValueError):
      return None

  def _read_metrics(self) -> None:
    inode, position = self._file
    try:
      with open(self._workdir / 'metrics.jsonl', 'rb') as file:
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
        self._take(json.loads(line))
      except (ValueError, KeyError, TypeError):
        continue  # A line that is no record of metrics.

  def _take(self, row: dict[str, Any]) -> None:
    progress = self._progress
    progress.step = int(row['step'])
    if 'steps_per_second' in row:
      progress.rate = float(row['steps_per_second'])
    quick = float(row.get(_QUICK_SCORE, math.nan))
    if math.isfinite(quick):
      known = progress.quick
      progress.quick = quick if known is None else min(known, quick)
