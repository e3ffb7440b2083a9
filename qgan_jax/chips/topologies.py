"""Devices of machines that are not here, to compile programs for.

The compilers of JAX's plugins need a description of a machine, and no machine:
libtpu knows its own, and for NVIDIA's chips it is a text, `h100.txtpb`, with
what a driver reports of one.
"""

from collections.abc import Sequence
import importlib.metadata
import importlib.resources
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from qgan_jax.chips.table import Chip, CHIPS, of_kind
from qgan_jax.errors import did_you_mean, UserError

HERE = 'here'
EXAMPLES = 'v5e:2x2, v5e:1, v5p:2x2x1, v6e:4x4, h100:1, h100:8'
# What libtpu would ask a cloud for, and would lock for itself alone.
_NO_MACHINE = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
}
_NEEDED = {
  'tpu': ('libtpu',),
  'gpu': ('jax-cuda12-plugin', 'jax-cuda12-pjrt', 'nvidia-cuda-nvcc-cu12'),
}


class Machine(NamedTuple):
  """What a program is made for.

  Attributes:
    name: as it was asked for.
    chip: its kind; None where the table does not know it, such as a CPU.
    devices: as JAX sees them; a chip of some kinds is two.
    chips: how many.
    backend: JAX's name of what drives them.
  """

  name: str
  chip: Chip | None
  devices: tuple[jax.Device, ...]
  chips: int
  backend: str

  @property
  def here(self) -> bool:
    """Whether a program can run on it."""
    return self.name == HERE

  @property
  def share(self) -> float:
    """Of a chip's rates and memory, a device's."""
    return self.chips / len(self.devices)


def find(name: str) -> Machine:
  """The machine of a name: 'here', or CHIP:COUNT or CHIP:TOPOLOGY.

  Raises:
    UserError: there is no such chip or topology, or its compiler is missing.
  """
  if name == HERE:
    devices = tuple(jax.devices())
    chip = of_kind(devices[0].device_kind)
    return Machine(HERE, chip, devices, len(devices), jax.default_backend())
  kind, _, shape = name.partition(':')
  if kind not in CHIPS:
    raise UserError(
      f'--on={name}: no chip {kind!r} is known; '
      + (did_you_mean(kind, CHIPS) or f'say one of {", ".join(CHIPS)}')
      + f', such as {EXAMPLES}, or {HERE}'
    )
  chip = CHIPS[kind]
  if not re.fullmatch(r'[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2}', shape):
    raise UserError(
      f'--on={name}: say how many chips, or how they lie, such as {EXAMPLES}'
    )
  for package in _NEEDED[chip.backend]:
    try:
      importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      raise UserError(
        f'--on={name} needs the compiler of that chip, and {package} is '
        "missing: pip install 'qgan_jax[preflight]'"
      ) from None
  if chip.backend == 'gpu':
    return _gpu(name, chip, shape)
  return _tpu(name, chip, shape)


def _tpu(name: str, chip: Chip, shape: str) -> Machine:
  """A slice; one chip is the first of a slice of four."""
  os.environ.update(_NO_MACHINE)
  square = '2x2' if chip.name.endswith('e') else '2x2x1'
  asked = square if shape == '1' else shape
  found = _topology(name, 'tpu', f'{chip.name}:{asked}')
  chips = math.prod(map(int, asked.split('x')))
  if shape == '1':
    return Machine(name, chip, found[: len(found) // chips], 1, chip.backend)
  return Machine(name, chip, found, chips, chip.backend)


def _gpu(name: str, chip: Chip, shape: str) -> Machine:
  """So many of one host, or HOSTSxCOUNT with a process for each."""
  hosts, _, count = shape.rpartition('x')
  if 'x' in hosts:
    raise UserError(
      f'--on={name}: say {chip.name}:COUNT, or {chip.name}:HOSTSxCOUNT'
    )
  config = importlib.resources.files(__package__) / f'{chip.name}.txtpb'
  found = _topology(
    name, 'cuda', f'{hosts or 1}x1x{count}', target_config=config.read_text()
  )
  return Machine(name, chip, found, len(found), chip.backend)


def _topology(
  name: str, platform: str, topology: str, **options: Any
) -> tuple[jax.Device, ...]:
  key = 'topology_name' if platform == 'tpu' else 'topology'
  try:
    found = topologies.get_topology_desc(
      platform=platform, **{key: topology}, **options
    )
  except jax.errors.JaxRuntimeError as error:
    first: Sequence[str] = str(error).splitlines()
    raise UserError(
      f'--on={name}: there is no such machine ({first[0]}); try {EXAMPLES}'
    ) from None
  return tuple(found.devices)
