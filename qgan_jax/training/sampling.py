"""Images of a generator in training: of its moving average, quantized."""

from collections.abc import Callable
import functools

import jax
import numpy as np

from qgan_jax.training.state import TrainState
from qgan_jax.training.step import Network

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

  @jax.jit
  def draw_batch(
    state: TrainState, key: jax.Array, start: jax.Array
  ) -> jax.Array:
    indices = start + jax.numpy.arange(_BATCH)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(indices)
    latents = jax.vmap(lambda k: jax.random.normal(k, (latent_dim,)))(keys)
    labels = indices % num_classes if num_classes else None
    g = state.generator
    weights = generator.precision.quantize_weights(
      state.average['params'], g.bits
    )
    images, _ = generator.precision.apply(
      generator.module,
      {'params': weights, **state.average['stats']},
      g.ranges,
      g.bits,
      latents,
      labels,
    )
    return ((images + 1) * 127.5).round().clip(0, 255).astype('uint8')

  def draw(state: TrainState, num: int, *, seed: int = 0) -> np.ndarray:
    key = jax.random.PRNGKey(seed)
    batches = [
      jax.device_get(draw_batch(state, key, np.int32(start)))
      for start in range(0, num, _BATCH)
    ]
    return np.concatenate(batches)[:num]

  return draw
