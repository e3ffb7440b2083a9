"""The networks of a variant as its losses call them, in one gradient."""

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
  """What `qgan_jax.variants.Nets` promises, for one function to be traced.

  Weights are quantized once for all calls. Each call of a network moves its
  ranges and statistics on, if it is one of those that may move.

  Attributes:
    states: of the networks, after the calls so far.
    hyperparameters: the variant's, by name.
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
      trained: of some, what the gradient is taken with respect to; the others
        have what is in their state.
      moving: names of the networks whose ranges and statistics calls move.
      noise: name → the key of its stochastic quantizers, or None.
      dropout: name → the key of the randomness of its module.
      rows: examples of the batch on this replica.
      replicas: that hold the rest of the batch.
      hyperparameters: of the variant.
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
    """The same; its calls move nothing."""
    return self._callable(name, moves=False)

  def was_called(self, name: str) -> bool:
    """Whether a network has been called."""
    return self._calls[name] > 0

  def _callable(self, name: str, *, moves: bool) -> Callable[..., Any]:
    # Here and not in the call, which may lie inside of another gradient.
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
    """This replica's rows of numbers that all replicas draw alike."""
    rows = self._rows if rows is None else rows
    _, number = self._replicas.place
    return self._replicas.deal(draw(key, (rows * number, *shape)))

  def first(self, fraction: float) -> tuple[int, Callable[[Array], Array]]:
    """A share of the global batch: (this replica's rows, their mean)."""
    _, number = self._replicas.place
    total = max(1, round(fraction * self._rows * number))
    count = -(-total // number)  # Some replicas have one too many.

    def mean(values: Array) -> Array:
      counts = self._replicas.indices(count) < total
      return jnp.where(counts, values, 0).sum() * number / total

    return count, mean
