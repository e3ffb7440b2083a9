"""Refuses a run that cannot fit into memory, before it has a folder."""

import math
from typing import Any

import jax

from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.training import devices
from qgan_jax.training.state import TrainState


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
  limit = devices.memory()
  if limit is not None and batch + state > limit:
    raise UserError(
      f'this run needs more memory than the {limit / 2**30:.1f} GiB that there '
      f'are: {batch / 2**30:.1f} GiB for batch_size={config.batch_size} images '
      f'and {state / 2**30:.1f} GiB for the networks; make batch_size or '
      'channels smaller'
    )
