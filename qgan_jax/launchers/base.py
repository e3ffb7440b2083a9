"""What all launchers have in common."""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Protocol

# Exit codes, as `subprocess` has them: a signal's number is negative, or 128
# more where a command handled it.
OK = 0
USER_ERROR = 2  # The command says what is wrong; a retry would fail too.
LOST = 255  # The machine, or the launcher's own process there, is gone.


@dataclasses.dataclass(frozen=True)
class Task:
  """One command, and what it owns.

  Attributes:
    name: what people call it.
    command: arguments; 'python' as the first is the Python that runs there.
    cwd: where the command's relative paths start.
    log: what it prints goes there, to the end of the file.
    lock: a file that is locked as long as the command runs, anywhere, so that
      nothing is written by two at a time.
    env: variables on top of those of the machine.
  """

  name: str
  command: tuple[str, ...]
  cwd: Path
  log: Path
  lock: Path
  env: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Job(Protocol):
  """A task that a launcher has taken."""

  def poll(self) -> int | None:
    """The exit code; None as long as there is none."""

  def running(self) -> bool:
    """Whether it has started; False while it waits for resources."""

  def cancel(self) -> None:
    """Asks it to save and end: SIGTERM."""

  def kill(self) -> None:
    """Ends it now: SIGKILL."""


class Launcher(Protocol):
  """Where tasks run.

  Attributes:
    slots: how many tasks it takes at a time; None if it queues by itself.
  """

  slots: int | None

  def submit(self, task: Task) -> Job:
    """Starts a task, or queues it."""

  def close(self) -> None:
    """Frees its resources, once no job is running any more."""
