"""Trains a variant and images that are given in Python, as a full run."""

from collections.abc import Mapping
import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from qgan_jax import config as config_lib
from qgan_jax import models, records
from qgan_jax.config import grammar
from qgan_jax.config.flags import Experiment
from qgan_jax.config.keys import path_of
from qgan_jax.data.dataset import ImageDataset, split_off_test
from qgan_jax.errors import UserError
from qgan_jax.precision import Quantized
from qgan_jax.runs import build
from qgan_jax.runs.opened import Trial
from qgan_jax.runs.population import is_finished
from qgan_jax.runs.trials import train_and_deliver
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.variants import Variant


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished run.

  Attributes:
    workdir: folder of the run, with all its files.
    network: the delivered network of the variant, such as the generator,
      quantized, from the best checkpoint. It is called like its module.
    scores: of the best and of the last state, as in `scores.json`.
  """

  workdir: Path
  network: Quantized
  scores: dict[str, Any]


def train(
  variant: Variant,
  images: np.ndarray,
  labels: np.ndarray | None = None,
  *,
  workdir: str | os.PathLike[str],
  bits: float = 8,
  **settings: Any,
) -> Run:
  """Trains the networks of a variant, quantized; then scores and packs them.

  If the run was stopped, the same call goes on from its last checkpoint. If it
  has finished, the call only reads the results. A tenth of the images is held
  out for the scores.

  Example:
    >>> import qgan_jax as q
    >>> run = q.train(
    ...   q.variants.gan(G(), D(), latent_dim=64, loss='hinge', penalty='r1'),
    ...   images, bits=4, workdir='runs/mine', steps=2000,
    ... )  # doctest: +SKIP
    >>> best = run.scores['best']  # doctest: +SKIP
    >>> best['frechet_distance']  # doctest: +SKIP

  Args:
    variant: the networks and their losses, such as `variants.gan(…)`.
    images: uint8 [N, H, W, C], square or not. C = 4 means RGBA with colours
      multiplied by alpha. In pairs of images, C holds the channels of the
      input, then those of the target.
    labels: classes of the images, integers [N] from 0 up, for a variant that
      uses labels.
    workdir: folder of the run.
    bits: bit width of the weights and activations of all networks; 32 is float.
    **settings: other config keys, by short name or dotted path, such as
      `steps`, `batch_size` or `learning_rate`. Keys of one network (`g_bits`,
      `d_bits`): those with `g_` apply to the delivered network and to one named
      'generator', 'decoder' or 'back_generator'; those with `d_` apply to all
      others.

  Returns:
    The finished run.

  Raises:
    ValueError: the images, the labels or a setting cannot be used; the folder
      holds another run; or training gave a value that is not finite.
    training.loop.Stopped: the process received SIGTERM or Ctrl-C; the state is
      saved.
  """
  dataset = dataclasses.replace(
    _dataset(images, labels), input_channels=variant.input_channels
  )
  classes = variant.settings.get('num_classes')
  if labels is not None and classes and classes != dataset.num_classes:
    raise ValueError(
      f'the variant has num_classes={classes}, and the labels are of '
      f'{dataset.num_classes} classes: both need the same number'
    )
  given = {
    'experiment': 'own',
    'source': dataset.name,
    'conditional': labels is not None,
    # The config cannot hold a variant, and records which one it is.
    'model': f'{models.GIVEN}:{variant.digest}',
    'penalty': 'none',
    'bits': bits,
    **settings,
  }
  folder = Path(workdir)
  try:
    _check_settings(settings)
    config = config_lib.resolve(config_lib.base(**given))
  except (UserError, TypeError) as error:
    raise ValueError(str(error)) from error
  try:
    config_lib.validate(config, tuple(variant.modules))
    arg = grammar.join({'bits': bits, **settings})
    experiment = Experiment(config, 'qgan_jax.train', arg, {})
    setup = build.set_up(config, dataset, variant=variant)
    trial = Trial(experiment, folder, variant, dataset)
    if not is_finished(trial):
      train_and_deliver([trial])
    checkpoints = Checkpoints(folder / 'checkpoints', primary=False)
    _, best = checkpoints.restore_best_or_latest(setup.state_shapes())
    scores = records.read(folder / 'scores.json', records.SCORES)
  except UserError as error:
    raise ValueError(str(error)) from error
  return Run(folder, setup.sampler().quantized(best), scores)


# Part of the definition of the order of a run's images: never change it.
_ORDER_KEY = 0x4F574E
# Groups, and last parts, of keys that speak of what is given in Python.
_GIVEN_GROUPS = ('model.', 'loss.', 'data.')
_GIVEN = (
  'experiment',
  'variant',
  'channels',
  'norm',
  'latent_dim',
  'spectral_norm',
)


def _check_settings(settings: Mapping[str, Any]) -> None:
  """Refuses settings that the variant and the images already decide."""
  for name in settings:
    path = path_of(name)
    last = path.rpartition('.')[2]
    if (
      path.startswith(_GIVEN_GROUPS)
      or last in _GIVEN
      or path == 'discriminator.steps'
    ):
      raise ValueError(
        f'{name}={settings[name]!r}: the variant and the images decide that'
      )


def _dataset(images: np.ndarray, labels: np.ndarray | None) -> ImageDataset:
  """The images as a data set that is named for its content."""
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or len(images) < 2:
    raise ValueError(
      f'images of {images.dtype}, {list(images.shape)}: uint8 [N, H, W, C] is '
      'needed, with two or more of them'
    )
  digest = hashlib.sha256(repr(images.shape).encode() + images.tobytes())
  classes = 0
  if labels is not None:
    labels = np.asarray(labels)
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != (len(images),) or not whole or labels.min() < 0:
      raise ValueError(
        f'labels of {labels.dtype}, {list(labels.shape)}: integers from 0 up, '
        f'[{len(images)}], are needed'
      )
    labels = labels.astype(np.int32)
    digest.update(labels.tobytes())
    classes = int(labels.max()) + 1
    empty = np.setdiff1d(np.arange(classes), labels)
    if len(empty):
      raise ValueError(
        f'no image has the label {empty[0]}: number the {classes - len(empty)} '
        'classes from 0 up, without gaps'
      )
  dataset = split_off_test(
    name=f'arrays-{digest.hexdigest()[:12]}',
    images=images,
    labels=labels,
    num_classes=classes,
  )
  # Arrays may be sorted, and the first images stand for all in several places.
  train_images, train_labels = _mixed(
    dataset.train_images, dataset.train_labels
  )
  test_images, test_labels = _mixed(dataset.test_images, dataset.test_labels)
  return dataclasses.replace(
    dataset,
    train_images=train_images,
    train_labels=train_labels,
    test_images=test_images,
    test_labels=test_labels,
  )


def _mixed(
  images: np.ndarray, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
  """Images and labels in a random order, always the same for their number."""
  words = np.random.Philox(key=_ORDER_KEY).random_raw(len(images))
  order = np.argsort(words, kind='stable')
  return images[order], None if labels is None else labels[order]
