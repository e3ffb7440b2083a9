"""Fits learned quantizers anew before steps that train at other bits."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision import Bits
from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.state import NetworkState, TrainState
from qgan_jax.training.trainable import Trainable


@dataclasses.dataclass(frozen=True)
class Refit:
  """Fits quantizers' learned parameters to a state's weights and a batch.

  A scale learned at other bits, or before steps in float moved the weights,
  does not fit any more. The schedule tells beforehand where that happens, so it
  is done between two steps, on one device, outside of the compiled step.

  Attributes:
    networks: by name; run without `train`, they need no mapped axis.
    schedule: of their bits.
    inputs: of each network, its arguments: always the same batch.
  """

  networks: Mapping[str, Trainable]
  schedule: Schedule
  inputs: Mapping[str, tuple[Any, ...]]

  def steps(self, state: TrainState, total_steps: int) -> frozenset[int]:
    """The steps of a run before which `before_step` has to be called.

    Args:
      state: any state of the run, for its target bits.
      total_steps: of the run.
    """
    if not self.schedule.changes_bits:
      return frozenset()
    numbers = jnp.arange(total_steps)
    due = np.zeros(total_steps, bool)
    for name, network in self.networks.items():
      if network.precision.fits_to_bits:
        bits = state.networks[name].bits
        due |= np.asarray(self.schedule.refits(bits, numbers))
    return frozenset(np.flatnonzero(due).tolist())

  def before_step(self, state: TrainState) -> TrainState:
    """The state with quantizers for the bits of its next step.

    A network whose bits stay the same keeps what it has learned. The quantizers
    of a moving average are fitted to the average.
    """

    def bits_of(part: NetworkState) -> Bits | None:
      if not self.schedule.refits(part.bits, state.step):
        return None
      return self.schedule.at(part.bits, state.step)

    return self._fitted(state, bits_of)

  def for_target(self, state: TrainState) -> TrainState:
    """The state with quantizers for the target's bits.

    A network that was trained at these bits keeps what it has learned.
    """

    def bits_of(part: NetworkState) -> Bits | None:
      on_the_way = self.schedule.is_on_the_way(part.bits, state.step)
      return part.bits if on_the_way else None

    return self._fitted(state, bits_of)

  def _fitted(
    self, state: TrainState, bits_of: Callable[[NetworkState], Bits | None]
  ) -> TrainState:
    """Fits the networks for which `bits_of` returns bits."""

    def fitted(name: str, part: NetworkState) -> NetworkState:
      bits = bits_of(part)
      if bits is None:
        return part
      network = self.networks[name].quantized(part.replace(bits=bits))
      found = network.fitted(*self.inputs[name])
      return part.replace(ranges=found.ranges, learned=found.learned)

    average = {
      name: {**own, 'learned': fitted(name, state.averaged(name)).learned}
      for name, own in state.average.items()
    }
    networks = {
      name: fitted(name, part) for name, part in state.networks.items()
    }
    return jax.device_get(state.replace(networks=networks, average=average))
