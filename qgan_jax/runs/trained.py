"""A trained run quantized without training: from its checkpoint to a state."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import FrozenConfigDict
import numpy as np

from qgan_jax import config as config_lib
from qgan_jax import errors, post_training
from qgan_jax.precision import Quantized
from qgan_jax.runs import build
from qgan_jax.runs.folder import read_run
from qgan_jax.training import devices
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.state import fill, TrainState

PyTree = Any
METHODS = ('nearest', 'mse', 'adaround')


def quantized_config(
  config: Any,
  *,
  w_bits: int,
  a_bits: int,
  quantizer: str,
  activation_quantizer: str,
  dynamic: bool,
  rules: str | None,
) -> FrozenConfigDict:
  """The config of a run that is quantized like this.

  Args:
    config: of the trained run.
    w_bits: of the weights of both networks.
    a_bits: of the activations.
    quantizer: of the weights.
    activation_quantizer: of the activations.
    dynamic: whether ranges are those of each batch.
    rules: precision rules, in place of the run's own.

  Raises:
    UserError: a value is not allowed.
  """
  c = config.to_dict()
  for network in config_lib.NETWORKS:
    c[network]['bits'] = {'weights': w_bits, 'activations': a_bits}
    c[network]['activation_quantizer'] = activation_quantizer
  c['precision'] |= {
    'quantizer': quantizer,
    'ranges': 'dynamic' if dynamic else 'moving',
    'rules': rules,
    # What is quantized is so at once, whenever training was to begin with it.
    'start_step': 0,
    'anneal_steps': 0,
    'alternate_steps': 0,
  }
  result = FrozenConfigDict(c)
  config_lib.validate(result)
  return result


class TrainedRun:
  """The best state of a finished run, ready to be quantized.

  Attributes:
    config: of the run.
    dataset: what it was trained on.
    gan: its networks.
    state: its best checkpoint, else the newest.
    inputs: for calibration, latents and training images with labels.
    sampler: draws from its state.
  """

  def __init__(self, workdir: Path, *, samples: int, seed: int):
    """Reads a run.

    Args:
      workdir: its folder.
      samples: calibration inputs of each network.
      seed: of these.

    Raises:
      UserError: it is no finished run, or its data set is not here.
    """
    self.config, name = read_run(workdir)
    self.dataset = build.load_dataset(self.config, standin=True)
    if self.dataset.name != name:
      raise errors.UserError(
        f'{workdir} was trained on {name}, and here is {self.dataset.name}; '
        'prepare that data set first'
      )
    self.layout = devices.ALONE
    gan = build.make_gan(self.config, self.dataset, self.layout)
    shapes = build.state_shapes(self.config, gan, self.dataset)
    checkpoints = Checkpoints(workdir / 'checkpoints', primary=False)
    _, self.state = checkpoints.restore_best_or_latest(shapes)
    self.gan = gan
    # Calibration inputs: the training-time distributions of both networks.
    count = min(samples, len(self.dataset.train_images))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(self.dataset.train_images))[:count]
    labels = None
    if gan.num_classes:
      labels = np.asarray(self.dataset.train_labels)[chosen]
    latents = rng.standard_normal((count, gan.latent_dim), np.float32)
    images = self.dataset.train_images[chosen].astype(np.float32) / 127.5 - 1
    self.inputs = {
      'generator': (latents, labels),
      'discriminator': (images, labels),
    }
    self.sampler = build.make_sampler(self.config, gan)

  def initial_state(self, config: Any, gan: build.Gan) -> TrainState:
    """The state of quantized networks that start from the trained ones."""
    d = self.state.discriminator
    start = {
      'generator': self.sampler.network(self.state).variables,
      'discriminator': {'params': d.params, **d.stats},
    }
    return build.make_states([config], gan, self.dataset, [start])[0]


def networks(gan: build.Gan, state: TrainState) -> dict[str, Quantized]:
  """Both networks of a state, whose activations have no ranges yet."""
  parts = {
    'generator': gan.generator.quantized(state.generator),
    'discriminator': gan.discriminator.quantized(state.discriminator),
  }
  return {name: network.replace(ranges={}) for name, network in parts.items()}


def quantize_state(
  run: TrainedRun,
  config: Any,
  *,
  method: str,
  calibration: str,
  bias_correction: bool,
  rounding_steps: int,
) -> tuple[build.Gan, TrainState]:
  """A run's networks quantized as a config says: (networks, state)."""
  gan = build.make_gan(config, run.dataset, run.layout)
  state = run.initial_state(config, gan)
  batch = min(64, len(run.inputs['generator'][0]))
  parts = {}
  for name, network in networks(gan, state).items():
    inputs = run.inputs[name]
    if method != 'nearest':
      network = post_training.fit_weights(network)
    if method == 'adaround':
      network = post_training.adaround(
        network, *inputs, steps=rounding_steps, batch_size=batch
      )
    # Before BatchNorm's statistics follow what is corrected.
    if bias_correction:
      network = post_training.correct_biases(network, *inputs, batch_size=batch)
    network = network.with_batch_stats(post_training.batches(inputs, batch))
    if network.precision.activations is not None:
      ranges = post_training.activation_ranges(
        network, *inputs, method=calibration, batch_size=batch
      )
      network = network.replace(ranges=ranges)
    part = getattr(state, name)
    variables = dict(network.variables)
    parts[name] = part.replace(
      params=variables.pop('params'),
      stats=variables,
      ranges=fill(part.ranges, network.ranges),
      learned=fill(part.learned, network.learned),
    )
  g = parts['generator']
  quantized = state.replace(
    step=run.state.step,
    generator=g,
    discriminator=parts['discriminator'],
    average={'params': g.params, 'stats': g.stats, 'learned': g.learned},
  )
  return gan, jax.device_get(quantized)
