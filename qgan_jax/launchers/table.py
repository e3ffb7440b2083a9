"""What a sweep shows: one live table on a terminal, plain lines elsewhere."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
import sys
import time
from types import TracebackType
from typing import Self

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table
from rich.text import Text

from qgan_jax.launchers.supervisor import STATES, Status

_SECONDS_BETWEEN_LINES = 30.0
_STYLES = {
  'running': 'cyan',
  'failed': 'bold red',
  'done': 'green',
  'stopped': 'yellow',
}
# Title, header, footer, rules and the prompt below.
_LINES_AROUND = 9
_LONGEST_MESSAGE = 60


class TableView:
  """A table that renews itself, on a terminal."""

  def __init__(self, title: str, slots: int | None):
    """Describes the sweep; entering it shows the table.

    Args:
      title: stands above.
      slots: how many trials run at a time, to estimate the time left; None if
        the launcher queues by itself.
    """
    self._title = title
    self._slots = slots
    self._console = rich_console.Console(stderr=True)
    self._live = rich_live.Live(
      console=self._console, auto_refresh=False, redirect_stdout=False
    )

  def __enter__(self) -> Self:
    """Shows it."""
    self._live.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Leaves the last state on the screen."""
    self._live.stop()

  def changed(self, status: Status) -> None:
    """A failure and a retry stay readable above the table."""
    if status.message:
      self._console.print(
        f'{status.name}: {status.state}: {status.message}',
        markup=False,
        highlight=False,
      )

  def update(self, statuses: Sequence[Status]) -> None:
    """Draws it anew."""
    rows = max(3, self._console.height - _LINES_AROUND)
    self._live.update(
      make_table(statuses, self._title, slots=self._slots, rows=rows),
      refresh=True,
    )


class LineView:
  """Plain lines for logs: for each change, and a summary now and then."""

  def __init__(self, slots: int | None):
    """Takes how many trials run at a time; None if that is not known."""
    self._slots = slots
    self._last = time.monotonic()

  def __enter__(self) -> Self:
    """Nothing to open."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Nothing to close."""

  def changed(self, status: Status) -> None:
    """Prints it; being queued or stopped is not worth a line."""
    if status.state in ('queued', 'stopped'):
      return
    line = f'{status.name}: {status.state}'
    if status.state == 'done':
      line += f' in {duration(status.seconds)}'
    if status.progress.score is not None:
      line += f', Fréchet distance {status.progress.score:.2f}'
    if status.message:
      line += f': {status.message}'
    self._say(line)

  def update(self, statuses: Sequence[Status]) -> None:
    """Prints how far all are, every half minute."""
    now = time.monotonic()
    if now - self._last > _SECONDS_BETWEEN_LINES:
      self._last = now
      self._say(overall(statuses, self._slots))

  def _say(self, line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def make_table(
  statuses: Sequence[Status], title: str, *, slots: int | None, rows: int
) -> rich_table.Table:
  """The table of a sweep.

  Args:
    statuses: of all trials.
    title: stands above.
    slots: see `time_left`.
    rows: at most so many trials are shown, running ones first.
  """
  table = rich_table.Table(
    title=Text(title), caption=overall(statuses, slots), caption_justify='left'
  )
  table.add_column('trial', overflow='fold')
  table.add_column('state')
  for name in ('step', 'steps/s', 'best so far', 'Fréchet', 'left'):
    table.add_column(name, justify='right')
  shown = sorted(statuses, key=lambda s: STATES.index(s.state))[:rows]
  order = {id(status) for status in shown}
  for status in (s for s in statuses if id(s) in order):
    table.add_row(
      Text(status.name),
      Text(_state(status), style=_STYLES.get(status.state, '')),
      *_numbers(status),
    )
  hidden = len(statuses) - len(shown)
  if hidden:
    table.add_row(Text(f'… and {hidden} more', style='dim'))
  return table


def _state(status: Status) -> str:
  text = status.state
  if status.attempts > 1:
    text += f' (start {status.attempts})'
  if status.state == 'failed':
    message = status.message.partition('\n')[0]
    cut = len(message) > _LONGEST_MESSAGE
    text += f': {message[:_LONGEST_MESSAGE]}{"…" * cut}'
  return text


def _numbers(status: Status) -> list[str]:
  progress = status.progress
  left = time_left_of(status)
  running = status.state == 'running'
  step = status.total_steps if status.state == 'done' else progress.step
  return [
    f'{step:,}/{status.total_steps:,}',
    f'{progress.rate:.3g}' if progress.rate and running else '',
    '' if progress.quick is None else f'{progress.quick:.2f}',
    '' if progress.score is None else f'{progress.score:.2f}',
    duration(left) if left is not None and running else '',
  ]


def time_left_of(status: Status) -> float | None:
  """Seconds that a trial still trains at its own rate; None if unknown."""
  progress = status.progress
  if not progress.rate:
    return None
  return max(0, status.total_steps - progress.step) / progress.rate


def time_left(statuses: Sequence[Status], slots: int | None) -> float | None:
  """Seconds until all are done, at the mean rate of those that run.

  What comes before and after a trial's steps, such as compiling and scoring, is
  taken to last as long as it did in those that are done. Until one is, it is
  what came before the steps of those that run.

  Args:
    statuses: of all trials.
    slots: how many run at a time; as many as do now if None.
  """
  running = [s for s in statuses if s.state == 'running' and s.progress.rate]
  if not running:
    return None
  done = [s for s in statuses if s.state == 'done' and s.progress.rate]
  whole = fmean(_beside_steps(s) for s in done or running)
  rate = fmean(s.progress.rate or 0.0 for s in running)
  open_ones = [s for s in statuses if s.state not in ('done', 'failed')]
  seconds = sum(
    max(0, s.total_steps - s.progress.step) / rate
    + max(0, whole - _beside_steps(s))
    for s in open_ones
  )
  return seconds / min(slots or len(running), len(open_ones))


def _beside_steps(status: Status) -> float:
  """Seconds that a trial has spent on anything but its steps so far."""
  progress = status.progress
  if not progress.rate:
    return 0.0
  return max(0.0, status.seconds - progress.step / progress.rate)


def overall(statuses: Sequence[Status], slots: int | None) -> str:
  """How far a sweep is, in a line."""
  counts = Counter(status.state for status in statuses)
  parts = [f'{counts["done"]} of {len(statuses)} done']
  parts += [
    f'{counts[state]} {state}'
    for state in STATES
    if counts[state] and state not in ('done', 'waiting')
  ]
  left = time_left(statuses, slots)
  if left is not None:
    parts.append(f'about {duration(left)} left')
  return ', '.join(parts)


def duration(seconds: float) -> str:
  """As H:MM:SS."""
  hours, rest = divmod(round(seconds), 3600)
  return f'{hours}:{rest // 60:02}:{rest % 60:02}'


def summary(statuses: Sequence[Status]) -> str:
  """All trials with their scores, for stdout."""
  width = max(len(status.name) for status in statuses)
  lines = [f'{"trial":{width}}  Fréchet  {"time":>8}  state']
  for status in statuses:
    score = status.progress.score
    lines.append(
      f'{status.name:{width}}  {"" if score is None else f"{score:.2f}":>7}  '
      f'{duration(status.seconds):>8}  {status.state}'
      + (f': {status.message}' if status.message else '')
    )
  return '\n'.join(lines)
