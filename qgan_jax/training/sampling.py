"""Draws images from the quantized moving average of a run in training."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from qgan_jax.precision import inputs_like, Quantized
from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.state import TrainState
from qgan_jax.training.step import to_float
from qgan_jax.training.trainable import Trainable

_BATCH = 256
CALIBRATION_IMAGES = 1024  # For BatchNorm's statistics.
_CALIBRATION_SIZE = 64  # Images in a batch of these.
_CALIBRATION_SEED = 0xCA11B
# Seed of the latents by which the best state, or the best bits, are chosen.
# Reported scores use other latents (seed 0 by default); with the same ones the
# chosen state would look better than it is. In the same way, a network that is
# called with images is chosen by training images, and scored by held-out ones.
CHOICE_SEED = 2**31 - 1
_OF_TRAINING = (CHOICE_SEED, _CALIBRATION_SEED)


def settled(
  network: Quantized,
  schedule: Schedule,
  step: Any,
  batches: Callable[[], list[Any]],
) -> Quantized:
  """A network of a state as it is used outside of training.

  Args:
    network: at its target bits.
    schedule: of its bits in training.
    step: of the state.
    batches: makes its arguments, batch by batch; called where they are needed.

  Returns:
    The network. Where the last step had other bits, its learned quantizers are
    fitted anew; BatchNorm's statistics are of its own quantized features.
  """
  on_the_way = schedule.is_on_the_way(network.bits, step)
  if not on_the_way and 'batch_stats' not in network.variables:
    return network
  found = batches()
  if on_the_way:
    # The own statistics in float first: activations depend on them.
    in_float = network.in_float().with_batch_stats(found)
    network = network.replace(variables=in_float.variables)
    network = network.fitted(*found[0])
  return network.with_batch_stats(found)


@dataclasses.dataclass(frozen=True)
class Sampler:
  """Draws images from a state as its delivered artifact would.

  Attributes:
    name: of the network that is drawn from.
    network: that network, on one device.
    schedule: of its bits in training.
    inputs: (keys [N], classes [N]) → its arguments for N images, see
      `Variant.inputs`; None of a network that is called with images.
    seen: these images among those of the training, uint8 [N, H, W, C].
    held_out: and among those held out.
  """

  name: str
  network: Trainable
  schedule: Schedule
  inputs: Callable[[jax.Array, jax.Array], tuple[Any, ...]] | None
  seen: np.ndarray | None = None
  held_out: np.ndarray | None = None

  def quantized(self, state: TrainState) -> Quantized:
    """The network that is drawn from, scored and packed.

    It is the state's moving average at its target bits. If the last step was
    trained at other bits (such as in float, before quantization starts), its
    learned quantizers are fitted anew, since those in the state were fitted to
    much older weights. BatchNorm's statistics are measured anew on the
    quantized average.

    Args:
      state: of the run, on the host.

    Returns:
      The network; the same state always gives the same one.
    """
    network = self.network.quantized(state.averaged(self.name))
    (called,) = jax.eval_shape(lambda: self._inputs(1, 1, _CALIBRATION_SEED))
    network = network.replace(inputs=inputs_like(*called))

    def batches() -> list[Any]:
      return self._inputs(
        CALIBRATION_IMAGES, _CALIBRATION_SIZE, _CALIBRATION_SEED
      )

    return settled(network, self.schedule, state.step, batches)

  def variables(self, state: TrainState) -> dict[str, dict[str, Any]]:
    """The variables of each network, for another run to start from.

    Of the delivered network they are the moving average that images are drawn
    from, before it is quantized; of the others, the moving average where they
    have one, such as an encoder, or else the trained weights.
    """
    parts = {name: state.averaged(name) for name in state.networks}
    return {
      name: {'params': part.params, **part.stats}
      for name, part in parts.items()
    } | {self.name: self.quantized(state).variables}

  def __call__(
    self,
    state: TrainState,
    num: int,
    *,
    seed: int = 0,
    labels: np.ndarray | None = None,
  ) -> np.ndarray:
    """Draws images from a state.

    Args:
      state: of the run, on the host.
      num: how many; of a network that is called with images, at most as many
        as there are of these.
      seed: of the latents; image i depends on it, on i and on its class alone.
      labels: classes of the images, int32 [num]; None for all classes in turn.

    Returns:
      uint8 [num, H, W, C]; of what is held out, in its order.
    """
    images = self._images(seed)
    if images is not None:
      num = min(num, len(images))
    # Put on the device once for all batches.
    network = jax.device_put(self.quantized(state))
    batches = [
      _draw_batch(network, *inputs)
      for inputs in self._inputs(num, _BATCH, seed, labels)
    ]
    return np.concatenate(jax.device_get(batches))[:num]

  def _images(self, seed: int) -> np.ndarray | None:
    """What a network that is called with images is given."""
    return self.seen if seed in _OF_TRAINING else self.held_out

  def _inputs(
    self, num: int, size: int, seed: int, labels: np.ndarray | None = None
  ) -> list[Any]:
    """Arguments of the network for at least so many images, in batches."""
    images = self._images(seed)
    if images is not None:
      # The last batch is filled up from the start.
      return [
        (to_float(images[(start + np.arange(size)) % len(images)]),)
        for start in range(0, min(num, len(images)), size)
      ]
    key = jax.random.PRNGKey(seed)
    starts = range(0, num, size)
    indices = np.arange(len(starts) * size, dtype=np.int32)
    classes = indices if labels is None else np.resize(labels, len(indices))
    return [
      _inputs(self.inputs, key, *(x[i : i + size] for x in (indices, classes)))
      for i in starts
    ]


@functools.partial(jax.jit, static_argnums=0)
def _inputs(
  inputs: Callable[[jax.Array, jax.Array], tuple[Any, ...]],
  key: jax.Array,
  indices: jax.Array,
  classes: jax.Array,
) -> tuple[Any, ...]:
  """Arguments for the images of these numbers, [N], and classes, [N]."""
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(indices)
  return inputs(keys, classes)


@jax.jit
def _draw_batch(network: Quantized, *inputs: Any) -> jax.Array:
  images = network(*inputs)
  return ((images + 1) * 127.5).round().clip(0, 255).astype('uint8')
