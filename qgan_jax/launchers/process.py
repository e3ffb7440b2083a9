"""The process of a task, the same under every launcher.

It holds the task's lock as long as it lives, so that a retry cannot start, on
any machine, before the attempt before it has ended. It gets SIGTERM when the
process that started it dies.
"""

from collections.abc import Iterable, Iterator
import contextlib
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import time
from types import FrameType

from qgan_jax import records
from qgan_jax.launchers import child
from qgan_jax.launchers.base import Task

_SECONDS_BETWEEN_POLLS = 0.1


class TaskProcess:
  """A `Job` on this machine; the first `poll` that gets the lock starts it."""

  def __init__(self, task: Task, *, cores: frozenset[int] = frozenset()):
    """Starts the task.

    Args:
      task: what to run.
      cores: the CPUs that it may use; all if empty.
    """
    self._task = task
    self._cores = cores
    self._process: subprocess.Popen[bytes] | None = None
    self._code: int | None = None
    self._waits = False
    self.poll()

  def running(self) -> bool:
    """Whether it has the lock and has started."""
    return self._process is not None

  def poll(self) -> int | None:
    """The exit code; None as long as there is none."""
    if self._code is None:
      if self._process is None:
        self._start()
      else:
        self._code = self._process.poll()
    return self._code

  def cancel(self) -> None:
    """Sends SIGTERM."""
    if self._process is None:
      self._code = -signal.SIGTERM
    elif self.poll() is None:
      self._process.send_signal(signal.SIGTERM)

  def kill(self) -> None:
    """Sends SIGKILL."""
    if self._process is None:
      self._code = -signal.SIGKILL
    elif self.poll() is None:
      # The whole session: a command may have started others.
      os.killpg(self._process.pid, signal.SIGKILL)

  def _start(self) -> None:
    task = self._task
    task.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(task.lock, os.O_RDWR | os.O_CREAT, 0o644)
    with open(task.log, 'ab', buffering=0) as log:
      try:
        if not records.try_lock(lock):
          if not self._waits:
            log.write(b'# waiting: another process is at work in this folder\n')
          self._waits = True
          return
        command = task.command
        if command[0] == 'python':
          command = (sys.executable, *command[1:])
        cores = ','.join(map(str, sorted(self._cores)))
        head = f'# {os.uname().nodename}: {shlex.join(task.command)}\n'
        log.write(head.encode())
        self._process = subprocess.Popen(
          [sys.executable, child.__file__, str(os.getpid()), cores, *command],
          cwd=task.cwd if task.cwd.is_dir() else None,
          env={
            **os.environ,
            **task.env,
            records.LOCK_VARIABLE: str(lock),
          },
          stdin=subprocess.DEVNULL,
          stdout=log,
          stderr=log,
          pass_fds=(lock,),
          # So Ctrl-C in a terminal reaches the sweep alone, which stops trials.
          start_new_session=True,
        )
      finally:
        os.close(lock)  # The child has inherited it.


@contextlib.contextmanager
def noted(signals: Iterable[signal.Signals]) -> Iterator[list[int]]:
  """Collects the numbers of signals in place of their usual effect.

  A hang-up that `nohup` has made the process ignore stays ignored.
  """
  received: list[int] = []

  def note(number: int, frame: FrameType | None) -> None:
    del frame
    received.append(number)

  ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  previous = {
    number: signal.signal(number, note)
    for number in signals
    if not (ignored and number == signal.SIGHUP)
  }
  try:
    yield received
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def run(task: Task, signals: Iterable[signal.Signals], *, grace: float) -> int:
  """Runs a task to its end, in a process that a cluster has started.

  While it runs the signals are only noted, so that none of them can interrupt
  the waiting: this returns when the command has ended, and not before.

  Args:
    task: what to run.
    signals: those by which the cluster asks it to save and end.
    grace: seconds to save.

  Returns:
    The exit code.
  """
  with noted(signals) as received:
    job = TaskProcess(task)
    deadline: float | None = None
    while (code := job.poll()) is None:
      time.sleep(_SECONDS_BETWEEN_POLLS)
      if received and deadline is None:
        deadline = time.monotonic() + grace
        job.cancel()
      if deadline is not None and time.monotonic() > deadline:
        job.kill()
  return code


def log_size(task: Task) -> int:
  """Bytes in a task's log: it grows as soon as the task starts, anywhere."""
  try:
    return task.log.stat().st_size
  except OSError:
    return 0


def absolute(path: Path) -> Path:
  """A path that means the same wherever a command starts."""
  return path if path.is_absolute() else Path.cwd() / path
