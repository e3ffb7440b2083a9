"""A run's progress bar, and its metrics on disk.

`metrics.jsonl` is strict JSON, which has no NaN and no infinities. They are
strings that Python's `float` reads: "NaN", "Infinity", "-Infinity" (the names
that Protocol Buffers' JSON uses).
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import math
import os
from pathlib import Path
import sys
import time
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from qgan_jax import records
from qgan_jax.errors import UserError

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
    primary: bool = True,
    shown: bool = True,
  ):
    """Describes the run; entering it opens the files.

    Args:
      workdir: the run's folder.
      total_steps: the step that training ends with.
      first_step: steps already done, 0 for a new run.
      dataset: name of the data set really used; it is in every line.
      primary: False in the processes of a distributed run that stay silent.
      shown: whether progress is shown; True for one of a population's members.
    """
    self._metrics_path = Path(workdir) / 'metrics.jsonl'
    self._tensorboard_path = Path(workdir) / 'tensorboard'
    self._total_steps = total_steps
    self._first_step = first_step
    self._dataset = dataset
    self._primary = primary
    self._shown = shown
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
    with _writing(self._metrics_path):
      self._metrics_path.parent.mkdir(parents=True, exist_ok=True)
      damaged = _keep_until(self._metrics_path, self._first_step)
    if damaged:
      self.message(
        f'{self._metrics_path} is damaged: {damaged} of its lines are left out'
      )
    with _writing(self._metrics_path):
      self._metrics: BinaryIO = open(self._metrics_path, 'ab', buffering=0)  # noqa: SIM115
    with _writing(self._tensorboard_path):
      self._tensorboard_path.mkdir(exist_ok=True)
      # SummaryWriter's own thread would block training on a full disk.
      self._events = EventsWriter(
        str(self._tensorboard_path / 'events'), f'.{time.time_ns()}'
      )
      self._event(
        step=self._first_step + 1 if self._first_step else 0,
        session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
      )
    if self._shown and sys.stderr.isatty():
      self._bar = _progress_bar()
      self._task = self._bar.add_task(
        '', total=self._total_steps, completed=self._first_step, status=''
      )
      self._bar.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Ends the bar and closes the files."""
    if not self._primary:
      return
    if self._bar:
      self._bar.stop()
    try:
      with _writing(self._tensorboard_path):
        self._events.close()
      with _writing(self._metrics_path):
        self._metrics.close()
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
    record: dict[str, object] = {'step': int(step), 'dataset': self._dataset}
    record |= {name: _strict(value) for name, value in values.items()}
    line = json.dumps(record, allow_nan=False) + '\n'
    with _writing(self._metrics_path):
      rest = line.encode()
      while rest:  # A disk that fills up may take a part before it raises.
        rest = rest[self._metrics.write(rest) :]
    self._check_there()
    with _writing(self._tensorboard_path):
      scalars = [
        summary_pb2.Summary.Value(tag=name, simple_value=value)
        for name, value in values.items()
      ]
      self._event(step=step, summary=summary_pb2.Summary(value=scalars))
    self._show(step, values)

  def images(self, step: int, name: str, grid_uint8: np.ndarray) -> None:
    """Records a picture in TensorBoard.

    Args:
      step: the number of steps done.
      name: its tag.
      grid_uint8: [height, width, 1 or 3 channels], uint8.

    Raises:
      UserError: if the file cannot be written.
    """
    if not self._primary:
      return
    with _writing(self._tensorboard_path):
      image = summary.image(name, grid_uint8, dataformats='HWC')
      self._event(step=step, summary=image)

  def advance(self, step: int) -> None:
    """Moves the bar; cheap enough for every step."""
    if self._clock is None:
      self._clock = step, time.perf_counter()
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

  def _check_there(self) -> None:
    """Raises an error where the file was removed: writing to it would not."""
    path = self._metrics_path
    try:
      same = os.path.samestat(os.stat(path), os.fstat(self._metrics.fileno()))
    except OSError:
      same = False
    if not same:
      raise UserError(
        f'{path} has been removed while the run was writing it; restore the '
        "run's folder from a copy, or start again in a new one"
      )

  def _event(self, **fields: object) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._events.write_event(event)
    self._events.flush()

  def _show(self, step: int, values: Mapping[str, float]) -> None:
    if not self._shown:
      return
    losses = [name for name in values if 'loss' in name][:_MAX_LOSSES_SHOWN]
    status = '  '.join(f'{name} {values[name]:.4g}' for name in losses)
    rate = values.get('steps_per_second')
    if rate:
      status = f'{rate:.3g} steps/s  {status}'
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


def _keep_until(path: Path, first_step: int) -> int:
  """Removes lines of later steps and a half line; a new run keeps nothing.

  Returns:
    How many other lines were no metrics, and are removed, too.
  """
  if not path.exists():
    return 0
  kept, damaged = b'', 0
  # What follows the last line's end is half a line, of a killed process.
  lines = path.read_bytes().split(b'\n')[:-1] if first_step else []
  for line in lines:
    try:
      if records.metrics_row(line)['step'] <= first_step:
        kept += line + b'\n'
    except ValueError:
      damaged += 1
  partial = path.with_name(f'{path.name}.partial')
  partial.write_bytes(kept)
  os.replace(partial, path)
  return damaged


def _strict(value: float) -> float | str:
  if math.isnan(value):
    return 'NaN'
  if math.isinf(value):
    return 'Infinity' if value > 0 else '-Infinity'
  return value


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror or error}; make room or '
      'change its permissions, and the same command resumes from the last '
      'checkpoint'
    ) from error
