"""The networks of a variant, as its losses call them while traced."""

from collections.abc import Callable, Collection, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from qgan_jax.precision.replicas import Replicas
from qgan_jax.training.state import NetworkState, Trained
from qgan_jax.training.trainable import Trainable

Array = jax.Array
PyTree = Any


class Nets:
  """Implements `qgan_jax.variants.Nets` while one function is traced.

  Weights are quantized once for all calls. Each call of a network in `moving`
  updates its ranges and statistics.

  Attributes:
    states: of the networks, after the calls so far.
    hyperparameters: the variant's, by name, with those that it adapts.
  """

  def __init__(
    self,
    networks: Mapping[str, Trainable],
    states: Mapping[str, NetworkState],
    trained: Mapping[str, Trained],
    *,
    moving: Collection[str],
    noise: Callable[[str], Array | None],
    dropout: Callable[[str], Array],
    rows: int,
    replicas: Replicas,
    hyperparameters: Mapping[str, Any],
  ):
    """Takes what is needed to call the networks.

    Args:
      networks: all of them, by name.
      states: theirs.
      trained: of some networks, the parameters that a gradient is taken with
        respect to; the others use those of their state.
      moving: names of the networks whose calls update ranges and statistics.
      noise: name → the key of its stochastic quantizers, or None.
      dropout: name → the key of the randomness of its module.
      rows: examples of the batch on this replica.
      replicas: the devices that share the batch.
      hyperparameters: of the variant, with those that it adapts.
    """
    self.states = dict(states)
    self.hyperparameters = hyperparameters
    self._networks = networks
    self._trained = {
      name: trained.get(name, state.trained) for name, state in states.items()
    }
    self._moving = moving
    self._noise = noise
    self._dropout = dropout
    self._rows = rows
    self._replicas = replicas
    self._weights: dict[str, tuple[PyTree, Array | None]] = {}
    self._calls = dict.fromkeys(networks, 0)

  def __getitem__(self, name: str) -> Callable[..., Any]:
    """The network of a name, quantized."""
    return self._callable(name, moves=name in self._moving)

  def frozen(self, name: str) -> Callable[..., Any]:
    """The same; its calls update neither ranges nor statistics."""
    return self._callable(name, moves=False)

  def was_called(self, name: str) -> bool:
    """Whether a network has been called."""
    return self._calls[name] > 0

  def _callable(self, name: str, *, moves: bool) -> Callable[..., Any]:
    # Quantized here and not in `_call`, which a loss may differentiate by
    # itself (a gradient penalty): tracers of that must not be kept.
    if name not in self._weights:
      noise = self._noise(name)
      self._weights[name] = (
        self._networks[name].quantize(
          self.states[name], self._trained[name], noise
        ),
        noise,
      )
    return functools.partial(self._call, name, moves)

  def _call(self, name: str, moves: bool, *args: Any) -> Any:
    weights, noise = self._weights[name]
    call = self._calls[name]
    self._calls[name] += 1
    output, moved = self._networks[name].run(
      self.states[name],
      *args,
      weights=weights,
      learned=self._trained[name].learned,
      noise=noise,
      dropout=self._dropout(name),
      call=call,
      replicas=self._replicas,
    )
    if moves:
      self.states[name] = moved
    return output

  def draw(
    self,
    draw: Callable[[Array, tuple[int, ...]], Array],
    key: Array,
    shape: tuple[int, ...] = (),
    rows: int | None = None,
  ) -> Array:
    """This replica's rows of the random numbers, which all replicas draw."""
    rows = self._rows if rows is None else rows
    _, number = self._replicas.place
    return self._replicas.deal(draw(key, (rows * number, *shape)))

  def first(self, fraction: float) -> tuple[int, Callable[[Array], Array]]:
    """A share of the global batch: (how many rows of this replica, mean)."""
    _, number = self._replicas.place
    total = max(1, round(fraction * self._rows * number))
    # Rounded up: on some replicas `mean` leaves the last row out.
    count = -(-total // number)

    def mean(values: Array) -> Array:
      counts = self._replicas.indices(count) < total
      return jnp.where(counts, values, 0).sum() * number / total

    return count, mean
