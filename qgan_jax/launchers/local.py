"""Tasks as processes of this machine, each with devices of its own.

A process sees only its own GPUs or TPU chips. On CPUs it is bound to its own
cores: processes of one thread each use them best.
"""

from collections.abc import Callable
import dataclasses
import functools
import glob
import os
import shutil
import subprocess

from qgan_jax.errors import UserError
from qgan_jax.launchers.base import Task
from qgan_jax.launchers.process import TaskProcess

# What JAX preallocates of a GPU, for all processes on it together.
_MEMORY_FRACTION = 0.9
# One chip of a host for one process; JAX's documentation of multi-process TPU.
_ONE_CHIP = {
  'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1',
  'TPU_PROCESS_BOUNDS': '1,1,1',
}


@dataclasses.dataclass(frozen=True)
class Place:
  """The devices of one task at a time.

  Attributes:
    env: environment variables that limit it to its devices.
    cores: the CPUs that it is bound to; all if empty.
  """

  env: dict[str, str] = dataclasses.field(default_factory=dict)
  cores: frozenset[int] = frozenset()


class LocalLauncher:
  """Runs as many tasks at a time as there are places."""

  def __init__(self, places: list[Place]):
    """Takes the places, which `find_places` makes."""
    self.slots: int | None = len(places)
    self._places = places
    self._taken: dict[int, TaskProcess] = {}

  def submit(self, task: Task) -> TaskProcess:
    """Starts a task in a place that is free."""
    free = next(
      i
      for i in range(len(self._places))
      if i not in self._taken or self._taken[i].poll() is not None
    )
    place = self._places[free]
    env = {**task.env, **place.env}
    job = TaskProcess(dataclasses.replace(task, env=env), cores=place.cores)
    self._taken[free] = job
    return job

  def close(self) -> None:
    """There is nothing to free."""


def find_places(
  *, parallel: int | None, cpus: int, gpus: float | None
) -> list[Place]:
  """The places on this machine.

  Args:
    parallel: how many; as many as there are GPUs, chips or cores if None.
    cpus: cores of each, where there are neither GPUs nor TPUs.
    gpus: GPUs of each; with a fraction, several places share one. None for 1
      if there are any.

  Raises:
    UserError: the machine has less than that.
  """
  devices = _gpus()
  if devices and gpus == 0:
    raise UserError(
      f'--gpus=0, but there are {len(devices)}: with JAX_PLATFORMS=cpu before '
      'the command, trials do not use them'
    )
  if devices:
    return _gpu_places(devices, parallel, 1.0 if gpus is None else gpus)
  if gpus:
    raise UserError(f'--gpus={gpus:g}, but there are none')
  chips = _tpu_chips()
  if chips:
    count = parallel or len(chips)
    if count > len(chips):
      raise UserError(
        f'--parallel={count}, but there are {len(chips)} TPU chips, and two '
        'processes cannot share one'
      )
    return [Place({'TPU_VISIBLE_CHIPS': c} | _ONE_CHIP) for c in chips[:count]]
  return _cpu_places(_cores(), parallel, cpus)


def _gpu_places(
  devices: list[str], parallel: int | None, gpus: float
) -> list[Place]:
  size = max(1, int(gpus))
  groups = [
    devices[i : i + size] for i in range(0, len(devices) - size + 1, size)
  ]
  if not groups:
    raise UserError(f'--gpus={gpus:g}, but there are {len(devices)}')
  count = parallel or len(groups) * (int(1 / gpus) if 0 < gpus < 1 else 1)
  sharing = -(-count // len(groups))
  memory = {}
  if sharing > 1:
    fraction = f'{_MEMORY_FRACTION / sharing:.3f}'
    memory = {'XLA_PYTHON_CLIENT_MEM_FRACTION': fraction}
  return [
    Place({'CUDA_VISIBLE_DEVICES': ','.join(groups[i % len(groups)])} | memory)
    for i in range(count)
  ]


def _cpu_places(
  cores: list[int], parallel: int | None, cpus: int
) -> list[Place]:
  if cpus > len(cores):
    raise UserError(f'--cpus={cpus}, but there are {len(cores)} cores')
  groups = [cores[i : i + cpus] for i in range(0, len(cores) - cpus + 1, cpus)]
  bind: Callable[[list[int]], frozenset[int]] = frozenset
  if not hasattr(os, 'sched_setaffinity'):
    bind = lambda group: frozenset()  # noqa: E731
  return [
    Place(cores=bind(groups[i % len(groups)]))
    for i in range(parallel or len(groups))
  ]


def _cores() -> list[int]:
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def _gpus() -> list[str]:
  """Names that CUDA_VISIBLE_DEVICES takes."""
  if _only_cpu():
    return []
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [name for name in visible.split(',') if name not in ('', '-1')]
  command = shutil.which('nvidia-smi')
  return _listed(command) if command else []


@functools.cache  # It takes up to a second, and is asked about every trial.
def _listed(command: str) -> list[str]:
  """The GPUs that nvidia-smi lists."""
  listed = subprocess.run(
    [command, '--query-gpu=index', '--format=csv,noheader'],
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  return listed.stdout.split() if listed.returncode == 0 else []


def _tpu_chips() -> list[str]:
  if _only_cpu():
    return []
  found = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  return [str(i) for i in range(len(found))]


def has_accelerators() -> bool:
  """Whether this machine has GPUs or TPU chips that may be used."""
  return bool(_gpus() or _tpu_chips())


def _only_cpu() -> bool:
  return os.environ.get('JAX_PLATFORMS', '').split(',')[0] == 'cpu'
