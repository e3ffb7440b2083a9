"""Quantizes a trained run without training: from a checkpoint to a state."""

from pathlib import Path
from typing import Any

import jax
from ml_collections import FrozenConfigDict
import numpy as np

from qgan_jax import config as config_lib
from qgan_jax import post_training
from qgan_jax.config.keys import KEYS
from qgan_jax.precision import Quantized
from qgan_jax.runs import build
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.state import average_of, fill, TrainState
from qgan_jax.training.step import to_float

PyTree = Any


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
  """The config of a run with its quantization replaced.

  Args:
    config: of the trained run.
    w_bits: of the weights of both networks.
    a_bits: of the activations.
    quantizer: of the weights.
    activation_quantizer: of the activations.
    dynamic: whether each batch's own range is used.
    rules: precision rules, which replace the run's own.

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
    # With 0, each batch has its own range, and those measured are not used.
    'momentum': c['precision']['momentum']
    or KEYS['precision.momentum'].default,
    'rules': rules,
    # Quantized from step 0, whatever the run's own schedule was.
    'start_step': 0,
    'anneal_steps': 0,
  }
  result = FrozenConfigDict(c)
  config_lib.validate(result)
  return result


class TrainedRun:
  """The best state of a finished run, ready to be quantized.

  Attributes:
    setup: of the run.
    state: its best checkpoint, or else the newest.
    inputs: of each network, arguments for calibration.
    sampler: draws from its state.
  """

  def __init__(self, workdir: Path, *, samples: int, seed: int):
    """Reads a run.

    Args:
      workdir: its folder.
      samples: number of calibration inputs of each network.
      seed: of these inputs.

    Raises:
      UserError: it is no finished run, or its data set is not available.
    """
    config, dataset = build.load_learned(workdir)
    self.setup = build.set_up(config, dataset)
    checkpoints = Checkpoints(workdir / 'checkpoints', primary=False)
    shapes = self.setup.state_shapes()
    _, self.state = checkpoints.restore_best_or_latest(shapes)
    # Calibration inputs: what the networks see in training.
    count = min(samples, len(dataset.train_images))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset.train_images))[:count]
    batch: dict[str, Any] = {'images': to_float(dataset.train_images[chosen])}
    if self.setup.labels is not None:
      batch['labels'] = self.setup.labels[chosen]
    self.inputs = self.setup.variant.examples(batch, jax.random.PRNGKey(seed))
    self.sampler = self.setup.sampler()

  def initial_state(self, setup: build.Setup) -> TrainState:
    """The state of quantized networks that start from the trained ones."""
    return setup.init_state(self.sampler.variables(self.state))


def networks(setup: build.Setup, state: TrainState) -> dict[str, Quantized]:
  """The networks of a state; their activations have no ranges yet."""
  return {
    name: network.quantized(state.networks[name]).replace(ranges={})
    for name, network in setup.networks.items()
  }


def quantize_state(
  run: TrainedRun,
  config: Any,
  *,
  method: str,
  calibration: str,
  bias_correction: bool,
  rounding_steps: int,
) -> tuple[build.Setup, TrainState]:
  """A run's networks, quantized as a config says, and their state."""
  setup = build.set_up(config, run.setup.dataset)
  state = run.initial_state(setup)
  parts = {}
  for name, network in networks(setup, state).items():
    network = post_training.fit(
      network,
      *run.inputs[name],
      method=method,
      calibration=calibration,
      bias_correction=bias_correction,
      rounding_steps=rounding_steps,
    )
    part = state.networks[name]
    variables = dict(network.variables)
    parts[name] = part.replace(
      params=variables.pop('params'),
      stats=variables,
      ranges=fill(part.ranges, network.ranges),
      learned=fill(part.learned, network.learned),
    )
  quantized = state.replace(
    step=run.state.step,
    networks=parts,
    average={name: average_of(parts[name]) for name in state.average},
  )
  return setup, jax.device_get(quantized)
