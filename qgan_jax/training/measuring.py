"""Numbers of held-out images by the quantized networks of a run in training."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision import Quantized
from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.sampling import CALIBRATION_IMAGES, settled
from qgan_jax.training.state import TrainState
from qgan_jax.training.step import to_float
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import Variant

_BATCH = 64
_HELD_OUT = 1000  # Images that are measured, at most.

# Images, uint8 [N, H, W, C], and their labels where they have any.
Images = tuple[np.ndarray, np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Measure:
  """Measures the networks of a state on images, as `Variant.measure` says.

  Attributes:
    variant: what was trained.
    networks: its networks, by name, on one device.
    schedule: of their bits in training.
    seen: images of the training, to which quantizers are fitted where they
      have to be.
  """

  variant: Variant
  networks: Mapping[str, Trainable]
  schedule: Schedule
  seen: Images

  def __call__(
    self, state: TrainState, images: Images, *, seed: int = 0
  ) -> dict[str, Any]:
    """Mean numbers of images.

    Args:
      state: of the run, on the host; its moving averages are measured, where
        networks have some.
      images: held out; of the first thousand, those count that fill batches.
      seed: of the random numbers.

    Returns:
      Numbers by name, and 'num_measured'; {} where the variant has no such
      scores.
    """
    if self.variant.measure is None:
      return {}
    key = jax.random.PRNGKey(seed)
    nets = {name: self._settled(name, state) for name in self.networks}
    numbers = state.hyperparameters.variant
    found = [
      _measure(self.variant, nets, numbers, batch, jax.random.fold_in(key, i))
      for i, batch in enumerate(_batches(images, _HELD_OUT))
    ]
    joined = {
      name: np.concatenate([jax.device_get(part[name]) for part in found])
      for name in found[0]
    }
    means = {name: float(values.mean()) for name, values in joined.items()}
    return {**means, 'num_measured': len(next(iter(joined.values())))}

  def _settled(self, name: str, state: TrainState) -> Quantized:
    """A network as it is used outside of training."""

    def batches() -> list[Any]:
      parts = _batches(self.seen, CALIBRATION_IMAGES)
      keys = jax.random.split(jax.random.PRNGKey(0), len(parts))
      return [
        self.variant.examples(part, key)[name]
        for part, key in zip(parts, keys, strict=True)
      ]

    network = self.networks[name].quantized(state.averaged(name))
    return settled(network, self.schedule, state.step, batches)


def _batches(images: Images, most: int) -> list[dict[str, jax.Array]]:
  """Batches of equal size, as a step sees them; a rest is left out."""
  values, labels = images
  count = min(most, len(values))
  size = min(_BATCH, count)
  parts = []
  for start in range(0, count - size + 1, size):
    part = {'images': to_float(jnp.asarray(values[start : start + size]))}
    if labels is not None:
      part['labels'] = jnp.asarray(labels[start : start + size])
    parts.append(part)
  return parts


@functools.partial(jax.jit, static_argnums=0)
def _measure(
  variant: Variant,
  nets: dict[str, Quantized],
  numbers: dict[str, jax.Array],
  batch: dict[str, jax.Array],
  key: jax.Array,
) -> dict[str, jax.Array]:
  assert variant.measure is not None
  params = {
    name: net.weights(net.variables['params']) for name, net in nets.items()
  }
  calls = {
    name: functools.partial(net.run, params[name]) for name, net in nets.items()
  }
  return variant.measure(calls, numbers, batch, key)
