"""Starts tasks, retries them, shows how far they are, and stops them."""

from collections.abc import Sequence
import contextlib
import dataclasses
import os
from pathlib import Path
import re
import signal
import sys
import time
from typing import Any, Protocol

from qgan_jax import records
from qgan_jax.errors import UserError
from qgan_jax.launchers import process
from qgan_jax.launchers.base import Job, Launcher, LOST, OK, Task, USER_ERROR
from qgan_jax.launchers.progress import Progress, Reader

_SECONDS_BETWEEN_POLLS = 0.2
_SECONDS_BETWEEN_READS = 2.0
_LONGEST_PAUSE = 60.0
_LOG_TAIL = 20_000

# In the order in which a table shows them.
STATES = ('running', 'queued', 'failed', 'waiting', 'stopped', 'done')


@dataclasses.dataclass
class Status:
  """The state of a trial.

  Attributes:
    name: of the trial.
    total_steps: the step that it ends with.
    state: one of `STATES`: waiting for its turn, queued by the launcher,
      running, done, failed for good, or stopped by a signal.
    attempts: how often it was started, in all sessions.
    seconds: how long it ran, in all sessions, when it was last looked at.
    message: why it failed, or why it will be started again.
    progress: what its run folder tells.
  """

  name: str
  total_steps: int
  state: str = 'waiting'
  attempts: int = 0
  seconds: float = 0.0
  message: str = ''
  progress: Progress = dataclasses.field(default_factory=Progress)


class View(Protocol):
  """Shows the trials to a person."""

  def changed(self, status: Status) -> None:
    """A trial's state or message has changed."""

  def update(self, statuses: Sequence[Status]) -> None:
    """Called every few seconds, to show progress."""


@dataclasses.dataclass
class Unit:
  """A task and the trials in it: one, or a whole population.

  Attributes:
    task: the command.
    trials: each with its run folder.
  """

  task: Task
  trials: list[tuple[Status, Path]]

  def __post_init__(self):
    self.readers = [Reader(workdir) for _, workdir in self.trials]
    self.job: Job | None = None
    self.counted = 0.0  # Until when its seconds are.
    self.not_before = 0.0
    self.retries = 0
    self.checkpoint = -1
    self.over = False

  @property
  def statuses(self) -> list[Status]:
    """Of its trials, in order."""
    return [status for status, _ in self.trials]

  def read(self) -> None:
    """Looks into the run folders."""
    for status, reader in zip(self.statuses, self.readers, strict=True):
      status.progress = reader.read()

  def newest(self) -> int:
    """A number that grows with every new checkpoint of its trials."""
    return sum(reader.checkpoint() + 1 for reader in self.readers)


# Ctrl-C, a cluster's request, a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
  """Brings all units to their end.

  A unit that crashes or loses its machine is started again, and goes on from
  its last checkpoint. `retries` limits how often in a row that happens without
  a new checkpoint. A command that reports a user's error is not retried.
  """

  def __init__(
    self,
    units: Sequence[Unit],
    launcher: Launcher,
    view: View,
    *,
    states: Path,
    retries: int,
    grace: float,
    pause: float = 1.0,
  ):
    """Reads what an earlier session left.

    Args:
      units: the tasks; those whose trials are all complete are not run.
      launcher: where it runs.
      view: shows the trials.
      states: a JSON file of what is known of each trial.
      retries: see the class.
      grace: seconds that tasks have to save when they are stopped.
      pause: seconds before a first retry; each further one waits twice that.
    """
    self._units = list(units)
    self._launcher = launcher
    self._view = view
    self._path = states
    self._retries = retries
    self._grace = grace
    self._pause = pause
    # The first unit, the pilot, starts alone, and the others wait until it has
    # begun to train. So data are downloaded once, the classifier that scores is
    # trained once, and an error that all would have is reported once.
    self._pilot: Unit | None = None
    self._begun = False
    old = _load(states)
    for unit in self._units:
      unit.read()
      for status in unit.statuses:
        known = old.get(status.name, {})
        status.attempts = known.get('attempts', 0)
        status.seconds = known.get('seconds', 0.0)
        if status.progress.done:
          status.state = 'done'
        if status.progress.damage:
          print(f'{status.progress.damage}; run again', file=sys.stderr)
      unit.over = all(s.state == 'done' for s in unit.statuses)

  @property
  def statuses(self) -> list[Status]:
    """All trials, in order."""
    return [status for unit in self._units for status in unit.statuses]

  def run(self) -> int:
    """Runs to the end.

    Returns:
      0 where all trials are done, 1 where some failed, 128 + the number of the
      signal that stopped it.

    Raises:
      UserError: the first trial was refused before it had even begun.
    """
    last_read = 0.0
    with process.noted(_SIGNALS) as received:
      try:
        while not received and not all(unit.over for unit in self._units):
          self._poll()
          self._start()
          now = time.monotonic()
          if now - last_read > _SECONDS_BETWEEN_READS:
            for unit in self._units:
              if unit.job:
                self._look(unit)
            self._view.update(self.statuses)
            last_read = now
          time.sleep(_SECONDS_BETWEEN_POLLS)
      finally:
        # Whatever happened, nothing is left running.
        self._stop(received)
        self._view.update(self.statuses)
        self._save()
    if received:
      return 128 + received[0]
    return int(any(status.state != 'done' for status in self.statuses))

  def _start(self) -> None:
    """Starts units in free slots."""
    now = time.monotonic()
    busy = sum(unit.job is not None for unit in self._units)
    for unit in self._units:
      if unit.over or unit.job or unit.not_before > now:
        continue
      if self._launcher.slots is not None and busy >= self._launcher.slots:
        return
      if self._pilot not in (None, unit) and not self._any_begun():
        return
      unit.checkpoint = unit.newest()
      unit.counted = now
      unit.job = self._launcher.submit(unit.task)
      busy += 1
      if not self._any_begun():
        self._pilot = unit
      state = 'running' if unit.job.running() else 'queued'
      for status in unit.statuses:
        if status.state != 'done':
          status.attempts += 1
          self._become(status, state)

  def _poll(self) -> None:
    for unit in self._units:
      if unit.job is None:
        continue
      code = unit.job.poll()
      if code is not None:
        self._end(unit, code)
      elif unit.job.running():
        for status in unit.statuses:
          if status.state == 'queued':
            unit.counted = time.monotonic()
            self._become(status, 'running')

  def _any_begun(self) -> bool:
    """Whether any trial has begun to train, now or in an earlier session."""
    self._begun = self._begun or any(
      (workdir / 'metrics.jsonl').exists()
      for unit in self._units
      for _, workdir in unit.trials
    )
    return self._begun

  def _end(self, unit: Unit, code: int) -> None:
    """A task has ended by itself."""
    self._account(unit)
    # The next unit to start becomes the pilot.
    pilot, self._pilot = self._pilot, None
    why = _why(unit.task.log, code)
    if code == USER_ERROR and unit is pilot and not self._any_begun():
      unit.over = True
      for status in unit.statuses:
        self._become(status, 'failed', why)
      raise UserError(
        f'{why} (said by the first trial, {unit.task.name}; the others were '
        'not started)'
      )
    missing = [s for s in unit.statuses if s.state != 'done']
    if code == OK and not missing:
      unit.over = True
      return
    if code == OK:
      why = 'the command ended well and left no scores'
    if unit.newest() > unit.checkpoint:
      unit.retries = 0
    if code in (OK, USER_ERROR) or unit.retries >= self._retries:
      unit.over = True
      for status in missing:
        self._become(status, 'failed', _own_message(why, status.name))
      return
    pause = min(self._pause * 2**unit.retries, _LONGEST_PAUSE)
    unit.retries += 1
    unit.not_before = time.monotonic() + pause
    for status in missing:
      self._become(
        status, 'waiting', f'{why}; retry {unit.retries} of {self._retries}'
      )

  def _account(self, unit: Unit) -> None:
    """Records results and time of a task that has ended."""
    unit.job = None
    self._look(unit)

  def _look(self, unit: Unit) -> None:
    """Looks into the run folders, where some may be complete by now."""
    unit.read()
    now = time.monotonic()
    for status in unit.statuses:
      is_done = status.progress.done and status.state in ('running', 'queued')
      if status.state == 'running' or is_done:
        status.seconds += now - unit.counted
      if is_done:
        self._become(status, 'done')
    unit.counted = now

  def _stop(self, received: list[int]) -> None:
    """Sends SIGTERM, waits, and kills; a second signal ends the waiting."""
    running = [unit for unit in self._units if unit.job]
    deadline = time.monotonic() + self._grace
    for unit in running:
      assert unit.job is not None
      unit.job.cancel()
    known = len(received)
    killed = False
    while running:
      late = time.monotonic() > deadline or len(received) > known
      for unit in list(running):
        assert unit.job is not None
        if unit.job.poll() is not None:
          self._account(unit)
          running.remove(unit)
        elif late and not killed:
          unit.job.kill()
      if late and not killed:
        killed, deadline = True, time.monotonic() + self._grace
      elif late and killed and time.monotonic() > deadline:
        break  # Killed, and still not gone: the cluster does not answer.
      time.sleep(_SECONDS_BETWEEN_POLLS / 4)
    for status in self.statuses:
      if received and status.state not in ('done', 'failed'):
        self._become(status, 'stopped')

  def _become(self, status: Status, state: str, message: str = '') -> None:
    status.state, status.message = state, message
    self._save()
    self._view.changed(status)

  def _save(self) -> None:
    kept = ('state', 'attempts', 'seconds', 'message')
    record = {
      status.name: {key: getattr(status, key) for key in kept}
      for status in self.statuses
    }
    records.write_json(self._path, record)


def _load(path: Path) -> dict[str, Any]:
  """What an earlier session knew of its trials, by name."""
  try:
    return records.read(path, records.STATES) or {}
  except records.DamagedFile as error:
    # Results are in the run folders.
    print(f'{error}; trials are counted anew', file=sys.stderr)
    return {}


def _why(log: Path, code: int) -> str:
  """Why a command ended, as it says itself or as its exit code does."""
  if code == USER_ERROR:
    try:
      with open(log, 'rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
        text = file.read().decode(errors='replace')
    except OSError:
      text = ''
    said = re.findall(r'^error: (.*(?:\n(?!#).*)*)', text, re.MULTILINE)
    return said[-1].strip() if said else f'exit code 2, see {log}'
  if code == LOST:
    return 'its machine or its worker was lost'
  number = -code if code < 0 else code - 128
  with contextlib.suppress(ValueError):
    return f'ended by {signal.Signals(number).name}, see {log}'
  return f'exit code {code}, see {log}'


def _own_message(why: str, name: str) -> str:
  """The line about one trial in a population's message."""
  for line in why.splitlines():
    folder, colon, rest = line.partition(': ')
    if colon and Path(folder).name == name:
      return rest
  return why
