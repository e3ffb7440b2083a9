"""A run's progress on a person's screen, and its metrics wherever they go."""

from collections.abc import Iterator, Mapping
import contextlib
import math
from pathlib import Path
import sys
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress

from qgan_jax.errors import UserError
from qgan_jax.training.writers import (
  JsonLines,
  TensorBoard,
  WeightsAndBiases,
  Writer,
)

_SECONDS_BETWEEN_LINES = 5.0
_MAX_LOSSES_SHOWN = 3


class Tracker:
  """Progress on stderr; metrics in `metrics.jsonl` and `tensorboard/`.

  A context manager. What a killed process wrote after `first_step` is removed
  from `metrics.jsonl` and hidden in TensorBoard, so that both hold each step
  once. Every write is complete when the method returns.

  The rate leaves out the first step, which compiles, and `paused` blocks.
  """

  def __init__(
    self,
    workdir: Path,
    *,
    total_steps: int,
    first_step: int,
    dataset: str,
    experiment: str = '',
    hyperparameters: Mapping[str, Any] | None = None,
    tracker: str = 'none',
    primary: bool = True,
    shown: bool = True,
  ):
    """Describes the run; entering it opens the files.

    Args:
      workdir: the run's folder.
      total_steps: the step that training ends with.
      first_step: steps already done, 0 for a new run.
      dataset: name of the data set really used; it is in every line.
      experiment: what the run belongs to.
      hyperparameters: what runs are compared by, by name.
      tracker: 'wandb' writes to Weights & Biases, too.
      primary: False in the processes of a distributed run that stay silent.
      shown: whether progress is shown; True for one of a population's members,
        until `hand_over`.
    """
    self._workdir = Path(workdir)
    self._total_steps = total_steps
    self._first_step = first_step
    self._dataset = dataset
    self._experiment = experiment
    self._hyperparameters = hyperparameters or {}
    self._tracker = tracker
    self._primary = primary
    self._shown = shown
    self._writers: list[Writer] = []
    self._clock: tuple[int, float] | None = None
    self._last_line = -math.inf
    self._bar: rich_progress.Progress | None = None

  def __enter__(self) -> Self:
    """Opens the files, and shows the bar where stderr is a terminal.

    Raises:
      UserError: if the files cannot be written.
    """
    if not self._primary:
      return self
    lines = JsonLines(self._workdir, self._first_step, self._dataset)
    if lines.damaged:
      self.message(
        f'{self._workdir / "metrics.jsonl"} is damaged: {lines.damaged} of its '
        'lines are left out'
      )
    self._writers = [
      lines,
      TensorBoard(self._workdir, self._first_step, self._hyperparameters),
    ]
    if self._tracker == 'wandb':
      self._writers.append(
        WeightsAndBiases(
          self._workdir,
          self._first_step,
          self._hyperparameters,
          self._experiment,
        )
      )
    if self._shown and sys.stderr.isatty():
      self._bar = _progress_bar()
      self._task = self._bar.add_task(
        '', total=self._total_steps, completed=self._first_step, status=''
      )
      self._bar.start()
    if self._shown and self._first_step < self._total_steps:
      self.message('compiling the training step…')
    self._entered = time.perf_counter()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Ends the bar and closes the files."""
    self.end_bar()
    try:
      for writer in reversed(self._writers):
        writer.close()
    except UserError:
      # An earlier error is the one to report.
      if kind is None:
        raise

  def log(self, step: int, metrics: Mapping[str, float]) -> None:
    """Records one step's metrics.

    `steps_per_second` is added: the rate since the log before this one. It is
    absent until a step has been timed.

    Args:
      step: the number of steps done.
      metrics: scalars by name; NaN and infinities are fine.

    Raises:
      UserError: if a file cannot be written, or the run's folder is gone.
    """
    if not self._primary:
      return
    self.advance(step)
    values = {name: float(value) for name, value in metrics.items()}
    assert self._clock is not None
    since, started = self._clock
    if step > since:
      now = time.perf_counter()
      values['steps_per_second'] = (step - since) / (now - started)
      self._clock = step, now
    for writer in self._writers:
      writer.scalars(step, values)
    self._show(step, values)

  def images(self, step: int, name: str, grid_uint8: np.ndarray) -> None:
    """Records a picture.

    Args:
      step: the number of steps done.
      name: its tag.
      grid_uint8: [height, width, 1 or 3 channels], uint8.

    Raises:
      UserError: if the file cannot be written.
    """
    for writer in self._writers:
      writer.image(step, name, grid_uint8)

  def scores(self, step: int, scores: Mapping[str, Any]) -> None:
    """Records what the run has come to; what is no number is left out.

    Args:
      step: of the state that was scored.
      scores: by name.

    Raises:
      UserError: if a file cannot be written.
    """
    values = {k: float(v) for k, v in scores.items() if type(v) in (int, float)}
    for writer in self._writers:
      writer.scores(step, values)

  def end_bar(self) -> None:
    """Ends the bar: what follows training is told in lines."""
    if self._bar:
      self._bar.stop()
      self._bar = None

  def hand_over(self, other: 'Tracker') -> None:
    """Lets another tracker show progress from here on, if this one has."""
    if not self._shown:
      return
    self._shown, other._shown = False, True
    if self._bar:
      other._bar, other._task, self._bar = self._bar, self._task, None

  def advance(self, step: int) -> None:
    """Moves the bar; cheap enough for every step."""
    if self._clock is None:
      self._clock = step, time.perf_counter()
      if self._shown and self._primary:
        seconds = self._clock[1] - self._entered
        self.message(f'compiling the training step: {seconds:.1f} s')
    if self._bar:
      self._bar.update(self._task, completed=step)

  def message(self, text: str) -> None:
    """Prints a line on stderr, above the bar if there is one."""
    if not self._primary:
      return
    if self._bar:
      self._bar.console.print(text, markup=False, highlight=False)
    else:
      print(text, file=sys.stderr, flush=True)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Time in this block, such as an evaluation, is not training time."""
    begun = time.perf_counter()
    try:
      yield
    finally:
      if self._clock is not None:
        since, started = self._clock
        self._clock = since, started + time.perf_counter() - begun

  def _show(self, step: int, values: Mapping[str, float]) -> None:
    if not self._shown:
      return
    losses = [name for name in values if 'loss' in name][:_MAX_LOSSES_SHOWN]
    status = '  '.join(f'{name} {values[name]:.4g}' for name in losses)
    rate = values.get('steps_per_second')
    if rate:
      status = f'{rate:.3g} steps/s  {status}'
    if not status:  # Of a grid's metrics, say: what was shown stays.
      return
    if self._bar:
      self._bar.update(self._task, status=status)
      return
    now = time.perf_counter()
    too_soon = now < self._last_line + _SECONDS_BETWEEN_LINES
    if too_soon and step < self._total_steps:
      return
    self._last_line = now
    if rate:
      left = round((self._total_steps - step) / rate)
      hours, seconds = divmod(left, 3600)
      status = f'{hours}:{seconds // 60:02}:{seconds % 60:02} left  {status}'
    self.message(f'step {step}/{self._total_steps}  {status}'.rstrip())


def _progress_bar() -> rich_progress.Progress:
  return rich_progress.Progress(
    rich_progress.MofNCompleteColumn(),
    rich_progress.BarColumn(bar_width=20),
    rich_progress.TimeRemainingColumn(),
    rich_progress.TextColumn('{task.fields[status]}', markup=False),
    console=rich_console.Console(stderr=True),
    refresh_per_second=4,
    # stdout belongs to the command's results, which may be piped.
    redirect_stdout=False,
  )
