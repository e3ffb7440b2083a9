"""Learned quantizers, fitted anew where training takes up other bits."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.network import Network
from qgan_jax.training.state import NetworkState, TrainState


@dataclasses.dataclass(frozen=True)
class Refit:
  """Fits what quantizers learn to the weights of a state, and to a batch.

  What they have learned at other bits, or before steps in float moved the
  weights, is of no use. When that happens is known beforehand, so it is done
  between two steps, on one device: the compiled step has no part in it.

  Attributes:
    generator: G, on one device.
    discriminator: D, likewise.
    schedule: of their bits.
    g_inputs: what G is called with: a batch that stays.
    d_inputs: what D is called with, likewise.
  """

  generator: Network
  discriminator: Network
  schedule: Schedule
  g_inputs: tuple[Any, ...]
  d_inputs: tuple[Any, ...]

  def steps(self, state: TrainState, total_steps: int) -> frozenset[int]:
    """The steps before which `before_step` is due, of a whole run.

    Args:
      state: any of the run's, for its target bits.
      total_steps: of the run.
    """
    if not self.schedule.changes_bits:
      return frozenset()
    numbers = jnp.arange(total_steps)
    due = np.zeros(total_steps, bool)
    for network, part in self._parts(state):
      if network.precision.fits_to_bits:
        due |= np.asarray(self.schedule.refits(part.bits, numbers))
    return frozenset(np.flatnonzero(due).tolist())

  def before_step(self, state: TrainState) -> TrainState:
    """The state with quantizers for the bits of its next step.

    Those of G's moving average are fitted to the average.
    """
    return self._fitted(
      state,
      *(
        self.schedule.at(part.bits, state.step)
        for _, part in self._parts(state)
      ),
    )

  def for_target(self, state: TrainState) -> TrainState:
    """The state with quantizers for the target's bits.

    Itself where they are those that it was trained with.
    """
    bits = [part.bits for _, part in self._parts(state)]
    on_the_way = [self.schedule.is_on_the_way(b, state.step) for b in bits]
    return self._fitted(state, *bits) if any(on_the_way) else state

  def _parts(self, state: TrainState) -> Sequence[tuple[Network, NetworkState]]:
    return (
      (self.generator, state.generator),
      (self.discriminator, state.discriminator),
    )

  def _fitted(self, state: TrainState, g_bits: Any, d_bits: Any) -> TrainState:
    def fitted(
      network: Network, part: NetworkState, bits: Any, inputs: Any
    ) -> NetworkState:
      found = network.quantized(part.replace(bits=bits)).fitted(*inputs)
      return part.replace(ranges=found.ranges, learned=found.learned)

    average = fitted(
      self.generator, state.averaged_generator, g_bits, self.g_inputs
    )
    return jax.device_get(
      state.replace(
        generator=fitted(
          self.generator, state.generator, g_bits, self.g_inputs
        ),
        discriminator=fitted(
          self.discriminator, state.discriminator, d_bits, self.d_inputs
        ),
        average={**state.average, 'learned': average.learned},
      )
    )
