"""Scores a state, a checkpoint or an artifact against held-out images."""

from pathlib import Path
import sys
from typing import Any

import numpy as np

from qgan_jax import artifacts, metrics, records
from qgan_jax.artifacts import drawer as drawer_lib
from qgan_jax.data import ImageDataset, labels_in_proportion
from qgan_jax.errors import UserError
from qgan_jax.runs import build, inputs, memory
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.state import TrainState

_SIDE = 8  # Rows, and columns, of samples and what is nearest to them.


def score_state(
  state: TrainState,
  setup: build.Setup,
  extractor: metrics.Extractor,
  *,
  samples: int,
  seed: int = 0,
  nearest: str | None = None,
) -> dict[str, Any]:
  """Scores a state's moving average.

  Args:
    state: of a run.
    setup: of that run; its held-out images are the reference.
    extractor: computes the features that scores compare.
    samples: number of images to draw.
    seed: of the latents.
    nearest: path of a PNG with samples beside the training images nearest to
      them; None for no such file.

  Returns:
    The result of `metrics.score`, with caveats, the variant's own measurements,
    and what was scored.
  """
  dataset = setup.dataset
  labels = setup.labels_to_draw(samples)
  fake = setup.sampler()(state, samples, seed=seed, labels=labels)
  return {
    'step': int(state.step),
    'weights': 'moving average',
    'latents_seed': seed,
    **_against_held_out(setup.config, dataset, fake, extractor, nearest),
    **setup.measure(state, seed=seed),
  }


def _against_held_out(
  config: Any,
  dataset: ImageDataset,
  fake: np.ndarray,
  extractor: metrics.Extractor,
  nearest: str | None,
) -> dict[str, Any]:
  """Scores of drawn images, of pairs each against its target, and caveats."""
  targets = dataset.test_targets
  scores = metrics.score(extractor, targets, fake)
  if dataset.input_channels and not dataset.is_unpaired:
    scores |= metrics.similarity(targets[: len(fake)], fake)
  if nearest is not None:
    shown = dataset.train_targets
    if config.data.flip:  # Trained on as well.
      shown = np.concatenate([shown, shown[:, :, ::-1]])
    scores |= _beside_nearest(nearest, shown, targets, fake, extractor)
  return {
    'reference': f'{dataset.name}, held-out',
    **scores,
    'caveats': records.caveats(scores),
  }


def _beside_nearest(
  path: str,
  train: np.ndarray,
  held_out: np.ndarray,
  fake: np.ndarray,
  extractor: metrics.Extractor,
) -> dict[str, float]:
  """Writes a picture of samples and their nearest training images.

  Each row is a sample and what is nearest to it: rows of the first samples, and
  then of those that are nearest to any training image.
  """
  features = [extractor.extract(x).features for x in (train, held_out, fake)]
  # As many rows as columns, which is how a grid lays them out.
  side = min(_SIDE, 1 + len(train))
  found = metrics.copying(*features, k=side - 1)
  suspects = np.argsort(found.distances[:, 0], kind='stable')
  first = side - side // 2
  rows = [
    np.concatenate([fake[i : i + 1], train[found.nearest[i]]])
    for i in (*range(first), *suspects[: side - first])
  ]
  artifacts.save_grid(
    path,
    np.concatenate(rows),
    description='samples, right of each the training images nearest to it',
  )
  print(
    f'samples beside their nearest training images: {path}', file=sys.stderr
  )
  return {'data_copying': found.data_copying}


def check_samples(count: int, dataset: ImageDataset) -> None:
  """Refuses to score too few images, or too many, before they are drawn.

  Raises:
    UserError: the number is too small or too large.
  """
  held_out = len(dataset.test_targets)
  if dataset.input_channels:  # As many are drawn as there are inputs.
    held_out = min(held_out, len(dataset.test_inputs))
  metrics.check_counts(held_out, count)
  memory.check_samples(count, dataset)


def score_checkpoint(
  workdir: Path,
  step: int | None,
  *,
  samples: int | None,
  seed: int,
  nearest: str | None = None,
) -> dict[str, Any]:
  """Scores a checkpoint of a run.

  Args:
    workdir: the run's folder.
    step: of the checkpoint; None for the best one.
    samples: number of images to draw; None for that of the run's config.
    seed: of the latents.
    nearest: as for `score_state`.

  Raises:
    UserError: it is not the folder of a run, has no such checkpoint, or the
      run's data set is not available.
  """
  config, dataset = build.load_learned(workdir)
  samples = samples or config.scores.samples
  check_samples(samples, dataset)
  setup = build.set_up(config, dataset)
  like = setup.state_shapes()
  checkpoints = Checkpoints(workdir / 'checkpoints', primary=False)
  if step is None:
    _, state = checkpoints.restore_best_or_latest(like)
  else:
    state = checkpoints.restore(step, like)
  return score_state(
    state,
    setup,
    build.make_extractor(config, dataset),
    samples=samples,
    seed=seed,
    nearest=nearest,
  )


def score_artifact(
  path: str,
  config: Any,
  *,
  samples: int | None,
  seed: int,
  seconds: float,
  nearest: str | None = None,
) -> dict[str, Any]:
  """Scores an artifact of any format.

  Args:
    path: of the file.
    config: resolved; names the data set and the extractor.
    samples: number of images to draw; None for that of the config.
    seed: of the latents.
    seconds: time limit of a program for one batch; see `open_drawer`.
    nearest: as for `score_state`.

  Raises:
    UserError: the data set is not available, or the file cannot be read.
  """
  inputs.check([config])
  drawer = artifacts.open_drawer(path, seconds=seconds)
  dataset = build.load_dataset(config, standin=True)
  _check_given(path, drawer, dataset)
  samples = samples or config.scores.samples
  check_samples(samples, dataset)
  extractor = build.make_extractor(config, dataset)
  if drawer.input_shape is None:
    label = None
    is_same = drawer.num_classes == dataset.num_classes
    if dataset.train_labels is not None and is_same:
      label = labels_in_proportion(dataset.train_labels, samples)
    drawn = drawer_lib.batches(drawer, num=samples, seed=seed, label=label)
    fake = np.concatenate([images for images, _ in drawn])
  else:
    fake = drawer_lib.made_of(drawer, dataset.test_inputs[:samples])
  return {
    'artifact': path,
    'weights': f'as exported, drawn in {drawer.runtime}',
    'latents_seed': seed,
    **_against_held_out(config, dataset, fake, extractor, nearest),
  }


def _check_given(
  path: str, drawer: artifacts.Drawer, dataset: ImageDataset
) -> None:
  """Refuses to call an artifact with what a data set does not have.

  Raises:
    UserError: it is called with other images than the inputs of its pairs, or
      with images and there are no pairs, or the reverse.
  """
  wanted = drawer.input_shape
  found = dataset.test_inputs.shape[1:] if dataset.input_channels else None
  if wanted != found:
    given, there = (
      'latents alone' if shape is None else f'images of {list(shape)}'
      for shape in (wanted, found)
    )
    raise UserError(
      f'{path} is called with {given}, and the data of this config are for '
      f'networks that are called with {there}: give the config of its run'
    )
