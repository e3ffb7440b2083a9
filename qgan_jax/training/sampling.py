"""Images of a generator in training: of its moving average, quantized."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from qgan_jax.precision import Quantized
from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.network import Network
from qgan_jax.training.state import TrainState

_BATCH = 256
_CALIBRATION_BATCHES = 16  # Of BatchNorm's statistics…
_CALIBRATION_SIZE = 64  # …and the images in each.
_CALIBRATION_SEED = 0xCA11B
# Seed of the images by which a state or bit widths are chosen. Scores that are
# reported have other latents (seed 0 unless a person says otherwise): those of
# the choice would flatter what they chose.
CHOICE_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Draws from the states of a run what would be delivered of them.

  Attributes:
    generator: G, on one device.
    schedule: of its bits in training.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional generator; otherwise the labels go
      round the classes.
  """

  generator: Network
  schedule: Schedule
  latent_dim: int
  num_classes: int

  def network(self, state: TrainState) -> Quantized:
    """The generator that is drawn from, scored and packed.

    The state's moving average at its target bits. Where the last step was
    trained with others (in float, before the schedule's start), its learned
    quantizers are fitted to these very weights, since those of the state were
    fitted to weights of long before; and BatchNorm's statistics are those of
    the quantized average.

    Args:
      state: of the run, on the host.

    Returns:
      The network; the same of the same state.
    """
    network = self.generator.quantized(state.averaged_generator)
    on_the_way = self.schedule.is_on_the_way(network.bits, state.step)
    if not on_the_way and 'batch_stats' not in network.variables:
      return network
    key = jax.random.PRNGKey(_CALIBRATION_SEED)
    batches = self._inputs(
      _CALIBRATION_BATCHES * _CALIBRATION_SIZE, _CALIBRATION_SIZE, key
    )
    if on_the_way:
      # Activations are fitted behind statistics that are the average's own.
      in_float = network.in_float().with_batch_stats(batches)
      network = network.replace(variables=in_float.variables)
      network = network.fitted(*batches[0])
    return network.with_batch_stats(batches)

  def __call__(
    self, state: TrainState, num: int, *, seed: int = 0
  ) -> np.ndarray:
    """Draws images from a state.

    Args:
      state: of the run, on the host.
      num: how many.
      seed: of the latents; image i depends on it and on i alone.

    Returns:
      uint8 [num, H, W, C].
    """
    # Put on the device once for all batches.
    network = jax.device_put(self.network(state))
    key = jax.random.PRNGKey(seed)
    batches = [
      _draw_batch(network, *inputs) for inputs in self._inputs(num, _BATCH, key)
    ]
    return np.concatenate(jax.device_get(batches))[:num]

  def _inputs(self, num: int, size: int, key: jax.Array) -> list[Any]:
    """(latents, labels) of at least so many images, in batches."""
    return [
      _inputs(self.latent_dim, self.num_classes, size, key, np.int32(start))
      for start in range(0, num, size)
    ]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _inputs(
  latent_dim: int, num_classes: int, size: int, key: jax.Array, start: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
  """Latents and labels of the images from a number on."""
  indices = start + jax.numpy.arange(size)
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(indices)
  latents = jax.vmap(lambda k: jax.random.normal(k, (latent_dim,)))(keys)
  return latents, indices % num_classes if num_classes else None


@jax.jit
def _draw_batch(
  network: Quantized, latents: jax.Array, labels: jax.Array | None
) -> jax.Array:
  images = network(latents, labels)
  return ((images + 1) * 127.5).round().clip(0, 255).astype('uint8')
