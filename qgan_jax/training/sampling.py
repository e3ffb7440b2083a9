"""Images of a generator in training: of its moving average, quantized."""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from qgan_jax.precision import Precision
from qgan_jax.training.network import Network
from qgan_jax.training.state import TrainState

PyTree = Any
_BATCH = 256
Draw = Callable[..., np.ndarray]


def make_draw(
  generator: Network, *, latent_dim: int, num_classes: int = 0
) -> Draw:
  """Makes the function that draws images from a state.

  Args:
    generator: G.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional generator; otherwise the labels go
      round the classes.

  Returns:
    `draw(state, num, seed=0)`: uint8 images [num, H, W, C] of the state's
    moving average at its bit widths. Image i depends on the seed and i alone.
  """

  def draw(state: TrainState, num: int, *, seed: int = 0) -> np.ndarray:
    g = state.generator
    # Put on the device once for all batches.
    ranges, bits, average = jax.device_put((g.ranges, g.bits, state.average))
    key = jax.random.PRNGKey(seed)
    batches = [
      _draw_batch(
        generator.module,
        generator.precision,
        latent_dim,
        num_classes,
        ranges,
        bits,
        average,
        key,
        np.int32(start),
      )
      for start in range(0, num, _BATCH)
    ]
    return np.concatenate(jax.device_get(batches))[:num]

  return draw


# Of the module, not of `make_draw`: runs alike in all that is static share it.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _draw_batch(
  module: nn.Module,
  precision: Precision,
  latent_dim: int,
  num_classes: int,
  ranges: PyTree,
  bits: PyTree,
  average: dict[str, PyTree],
  key: jax.Array,
  start: jax.Array,
) -> jax.Array:
  indices = start + jax.numpy.arange(_BATCH)
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(indices)
  latents = jax.vmap(lambda k: jax.random.normal(k, (latent_dim,)))(keys)
  labels = indices % num_classes if num_classes else None
  learned = average['learned']
  weights = precision.quantize_weights(average['params'], bits, learned=learned)
  images, _ = precision.apply(
    module,
    {'params': weights, **average['stats']},
    ranges,
    bits,
    latents,
    labels,
    learned=learned,
  )
  return ((images + 1) * 127.5).round().clip(0, 255).astype('uint8')
