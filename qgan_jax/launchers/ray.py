"""Tasks on a Ray cluster, whose machines share the sweep's folder.

Ray places a task, tells it its GPUs and says when its worker or its machine is
lost. It retries nothing: the supervisor does, from the last checkpoint.
"""

import dataclasses
import os
import re
import signal
import socket
import sys
from typing import Any

from qgan_jax.errors import UserError
from qgan_jax.launchers import process
from qgan_jax.launchers.base import LOST, Task

# Environment variables that are passed on to trials on other machines.
_FORWARDED = ('JAX_', 'XLA_', 'TFDS_', 'QGAN_JAX_', 'PYTHONPATH')
_MEMORY_FRACTION = 0.9  # What JAX preallocates of a GPU that is not shared.


def _import_ray() -> Any:
  try:
    import ray
  except ImportError:
    raise UserError(
      "--launcher=ray needs Ray: pip install 'qgan_jax[ray]'"
    ) from None
  return ray


def _knock(address: str | None) -> None:
  """Raises OSError at once if nobody listens; Ray would try for minutes."""
  match = re.fullmatch(r'(?:ray://)?([^/:]+):(\d+)', address or '')
  if match:
    socket.create_connection((match[1], int(match[2])), timeout=10).close()


class RayLauncher:
  """Hands tasks to a cluster, or to Ray on this machine where there is none."""

  def __init__(
    self,
    *,
    address: str | None = None,
    slots: int | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    resources: dict[str, float] | None = None,
    grace: float = 60.0,
  ):
    """Joins the cluster.

    Args:
      address: HOST:PORT, ray://HOST:PORT, or 'auto'. None takes RAY_ADDRESS or
        a cluster on this machine, and starts one where there is none.
      slots: how many tasks at a time; None for as many as the cluster takes.
      cpus: of a task.
      gpus: of a task; a fraction shares a GPU, and its memory.
      resources: others that the cluster names, such as {'TPU': 4}.
      grace: seconds that a task has to save when it is cancelled.

    Raises:
      UserError: there is no such cluster, no Ray, or no such resources.
    """
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    self._ray = _import_ray()
    try:
      _knock(address)
      self._ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError, OverflowError) as error:
      raise UserError(
        f'Ray cannot be reached at {address!r} ({error}); start it by '
        '`ray start --head`, or leave --ray_address out'
      ) from None
    self.slots = slots
    self._grace = grace
    self._env = {
      key: value
      for key, value in os.environ.items()
      if key.startswith(_FORWARDED)
    }
    if 0 < gpus < 1:
      fraction = f'{_MEMORY_FRACTION * gpus:.3f}'
      self._env['XLA_PYTHON_CLIENT_MEM_FRACTION'] = fraction
    self._warn(cpus, gpus, resources or {})
    try:
      self._remote = self._ray.remote(
        num_cpus=cpus,
        num_gpus=gpus,
        resources=resources or None,
        max_retries=0,
        scheduling_strategy='SPREAD',
      )(_run)
    except ValueError as error:  # Of {'CPU': 2}, or half a TPU.
      self.close()
      raise UserError(f'--ray_resources: {error}') from None

  def _warn(self, cpus: int, gpus: float, others: dict[str, float]) -> None:
    """Warns if no machine has what a task asks for; Ray would just wait."""
    nodes = [n['Resources'] for n in self._ray.nodes() if n['Alive']]
    wanted = {'CPU': cpus, 'GPU': gpus, **others}
    if not any(
      all(node.get(name, 0) >= count for name, count in wanted.items())
      for node in nodes
    ):
      asked = ', '.join(f'{name}={count:g}' for name, count in wanted.items())
      print(
        f'no machine of the Ray cluster has what a trial asks for, {asked}: '
        'trials wait until one comes; see --cpus, --gpus and --ray_resources',
        file=sys.stderr,
      )

  def submit(self, task: Task) -> 'RayJob':
    """Queues a task."""
    task = dataclasses.replace(task, env={**self._env, **task.env})
    size = process.log_size(task)
    return RayJob(self._ray, self._remote.remote(task, self._grace), task, size)

  def close(self) -> None:
    """Leaves the cluster; ends it if it was started by this launcher."""
    self._ray.shutdown()


def _run(task: Task, grace: float) -> int:
  """Runs in a Ray worker, which gets SIGINT when its task is cancelled."""
  return process.run(task, [signal.SIGINT], grace=grace)


class RayJob:
  """A task that Ray has."""

  def __init__(self, ray: Any, ref: Any, task: Task, size: int):
    """Takes the reference of the task's exit code, and its log's size."""
    self._ray = ray
    self._ref = ref
    self._task = task
    self._size = size

  def running(self) -> bool:
    """Whether it has written to its log."""
    return process.log_size(self._task) > self._size

  def poll(self) -> int | None:
    """The exit code; None as long as there is none."""
    exceptions = self._ray.exceptions
    done, _ = self._ray.wait([self._ref], timeout=0)
    if not done:
      return None
    try:
      return self._ray.get(self._ref)
    except exceptions.TaskCancelledError:
      return -signal.SIGTERM
    except exceptions.RayTaskError as error:
      # The command has not run, for example because a folder is not shared.
      with open(self._task.log, 'a') as log:
        print(error, file=log)
      return 1
    except exceptions.RayError:
      return LOST

  def cancel(self) -> None:
    """Interrupts it: the command gets SIGTERM, and `grace` seconds to save."""
    self._ray.cancel(self._ref)

  def kill(self) -> None:
    """Kills the worker; the command ends with it."""
    self._ray.cancel(self._ref, force=True)
