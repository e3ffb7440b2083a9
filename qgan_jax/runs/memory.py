"""Refuses runs that cannot fit into memory, before they start."""

import math
from typing import Any

import jax

from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.training import devices, machine
from qgan_jax.training.state import TrainState


def check(setup: build.Setup, shapes: TrainState) -> None:
  """Compares the memory that a run needs at least with what there is.

  It needs at least its state and one batch of images as floats. Gradients and
  the outputs of layers are not counted, so a run that passes may still be too
  large.

  Args:
    setup: of the run.
    shapes: of its state.

  Raises:
    UserError: there is less memory than that.
  """
  config: Any = setup.config
  check_samples(config.logging.eval_samples, setup.dataset)
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


def check_samples(count: int, dataset: ImageDataset) -> None:
  """Compares the images that are scored together with the machine's memory.

  Raises:
    UserError: the images alone are larger.
  """
  size = count * math.prod(dataset.train_images.shape[1:])
  limit = machine.memory()
  if limit is not None and size > limit:
    raise UserError(
      f'{count:,} generated images need {size / 2**30:.1f} GiB, more than the '
      f'{limit / 2**30:.1f} GiB that there are: ask for fewer samples'
    )
