"""Refuses a run that cannot fit into memory, before it has a folder."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import jax

from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.training.state import TrainState

_CONTAINER = Path('/sys/fs/cgroup/memory.max')  # A number, or `max`.


def available() -> int | None:
  """Bytes that all devices have together, used or not; None if unknown."""
  devices = jax.local_devices()
  if devices[0].platform == 'cpu':
    return _of_machine()
  limits = [(d.memory_stats() or {}).get('bytes_limit', 0) for d in devices]
  return sum(limits) if all(limits) else None


def _of_machine() -> int | None:
  found = []
  if 'SC_PHYS_PAGES' in os.sysconf_names:
    found.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  # Elsewhere than in a container with a limit, there is no such number.
  with contextlib.suppress(OSError, ValueError):
    found.append(int(_CONTAINER.read_text()))
  return min(found, default=None)


def check(setup: build.Setup, shapes: TrainState) -> None:
  """Compares the least that a run needs with what there is.

  The least is its state and one batch of images as floats. Gradients and what
  layers hand to each other come on top, so that a run that passes may still
  be too large.

  Args:
    setup: of the run.
    shapes: of its state.

  Raises:
    UserError: there is less.
  """
  config: Any = setup.config
  image = 4 * math.prod(setup.dataset.train_images.shape[1:])
  batch = config.batch_size * image // jax.process_count()
  state = sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes)
  )
  limit = available()
  if limit is not None and batch + state > limit:
    raise UserError(
      f'this run needs more memory than the {limit / 2**30:.1f} GiB that there '
      f'are: {batch / 2**30:.1f} GiB for batch_size={config.batch_size} images '
      f'and {state / 2**30:.1f} GiB for the networks; make batch_size or '
      'channels smaller'
    )
