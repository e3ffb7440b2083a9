"""Tasks as Slurm jobs, through submitit; they share the sweep's folder.

submitit would requeue by itself. Here it does not: a job that is pre-empted or
reaches its time limit saves and ends, and the supervisor submits another.
"""

from collections.abc import Mapping
import logging
from pathlib import Path
import signal
import subprocess
import time
from typing import Any

from qgan_jax.errors import UserError
from qgan_jax.launchers import process
from qgan_jax.launchers.base import LOST, Task

_ALIVE = ('PENDING', 'CONFIGURING', 'RUNNING', 'COMPLETING', 'SUSPENDED')
_SECONDS_BETWEEN_QUERIES = 5.0
# A result on a shared folder may be seen later than the job's end.
_SECONDS_TO_APPEAR = 10.0
_MINUTES = 240


class Queue:
  """The states of this user's jobs; Slurm is asked for all at once."""

  def __init__(self):
    """Asks nothing yet."""
    self._states: dict[str, str] = {}
    self._asked = -float('inf')

  def is_alive(self, job: str) -> bool:
    """Whether a job waits or runs; True where Slurm does not answer."""
    now = time.monotonic()
    if now - self._asked > _SECONDS_BETWEEN_QUERIES:
      self._asked = now
      command = ['squeue', '--noheader', '--me', '--format=%i %T']
      done = subprocess.run(
        command, capture_output=True, text=True, check=False
      )
      if done.returncode:
        return True
      rows = (line.split() for line in done.stdout.splitlines())
      self._states = {name: state for name, state in rows}
    return self._states.get(job) in _ALIVE


class SlurmLauncher:
  """Submits a job for each task."""

  def __init__(
    self,
    folder: Path,
    *,
    cluster: str = 'slurm',
    slots: int | None = None,
    cpus: int = 1,
    gpus: int = 0,
    options: Mapping[str, str] | None = None,
    grace: float = 60.0,
  ):
    """Describes the jobs.

    Args:
      folder: for submitit's files; shared by all machines.
      cluster: 'slurm', or 'local' for submitit's stand-in on this machine.
      slots: how many jobs are submitted at a time; None for all.
      cpus: of a task.
      gpus: of a task.
      options: of sbatch, such as {'partition': 'gpu', 'time': '120'}.
      grace: seconds that a task has to save when it is stopped.

    Raises:
      UserError: there is no Slurm, or no submitit.
    """
    try:
      import submitit
    except ImportError:
      raise UserError(
        "--launcher=slurm needs submitit: pip install 'qgan_jax[slurm]'"
      ) from None
    # submitit warns of a missing sacct and of its stand-in; neither matters.
    logging.getLogger('submitit').setLevel(logging.ERROR)
    options = dict(options or {})
    minutes = options.pop('time', str(_MINUTES))
    if not minutes.isdecimal():
      raise UserError(f'--slurm: time={minutes} is no number of minutes')
    self._submitit = submitit
    self.slots = slots
    self._grace = grace
    self._queue = Queue() if cluster == 'slurm' else None
    try:
      self._executor = submitit.AutoExecutor(folder, cluster=cluster)
      self._executor.update_parameters(
        cpus_per_task=cpus,
        timeout_min=int(minutes),
        **({'gpus_per_node': gpus} if gpus else {}),
      )
      if cluster == 'slurm':
        self._executor.update_parameters(
          # Slurm's own requeueing would run a task beside its retry.
          slurm_additional_parameters={'no_requeue': True, **options},
          slurm_signal_delay_s=int(grace) + 30,
        )
    except RuntimeError as error:
      raise UserError(f'Slurm cannot be used here: {error}') from None

  def submit(self, task: Task) -> 'SlurmJob':
    """Queues a task."""
    self._executor.update_parameters(name=_name(task.name))
    size = process.log_size(task)
    try:
      job = self._executor.submit(_run, task, self._grace)
    except (
      self._submitit.core.utils.FailedJobError,
      self._submitit.core.utils.FailedSubmissionError,
    ) as error:
      raise UserError(f'Slurm takes no job: {error}') from None
    return SlurmJob(job, task, size, self._queue)

  def close(self) -> None:
    """There is nothing to free."""


def _name(name: str) -> str:
  return ''.join(c if c.isalnum() or c in '=._-' else '_' for c in name)


def _run(task: Task, grace: float) -> int:
  """Runs in the job, where Slurm's signals stop the command."""
  # submitit's own handlers would requeue. USR2 comes before a time limit,
  # TERM with a pre-emption and with scancel.
  signals = [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT]
  return process.run(task, signals, grace=grace)


class SlurmJob:
  """A task that Slurm has."""

  def __init__(self, job: Any, task: Task, size: int, queue: Queue | None):
    """Takes submitit's job, and the size of the task's log."""
    self._job = job
    self._task = task
    self._size = size
    self._queue = queue
    self._submitted = time.monotonic()
    self._gone: float | None = None

  def running(self) -> bool:
    """Whether it has written to its log."""
    return process.log_size(self._task) > self._size

  def poll(self) -> int | None:
    """The exit code; None as long as there is none."""
    if self._job.paths.result_pickle.exists():
      try:
        return self._job.result()
      except Exception as error:  # What the job raised, unpickled.
        with open(self._task.log, 'a') as log:
          print(error, file=log)
        return 1
    now = time.monotonic()
    if self._is_alive(now):
      self._gone = None
    elif self._gone is None:
      self._gone = now
    elif now - self._gone > _SECONDS_TO_APPEAR:
      return LOST
    return None

  def _is_alive(self, now: float) -> bool:
    if self._queue is None:
      return not self._job.done()
    # The last answer may be older than the job.
    young = now - self._submitted < 2 * _SECONDS_BETWEEN_QUERIES
    return self._queue.is_alive(self._job.job_id) or young

  def cancel(self) -> None:
    """Sends SIGTERM to the job's process, which passes it on."""
    if self._queue is not None and self.running():
      # A plain scancel would kill it after Slurm's KillWait, not our grace.
      command = ['scancel', '--signal=TERM', self._job.job_id]
      subprocess.run(command, capture_output=True, check=False)
    else:
      self._job.cancel(check=False)

  def kill(self) -> None:
    """Cancels the job."""
    self._job.cancel(check=False)
