"""What a variant is: networks, and the losses that train them.

A variant is mathematics alone. The step does all the rest: it quantizes the
networks, takes gradients, averages them over devices, applies the optimizers,
and keeps the moving averages.
"""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import re
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Any]  # 'images', float [B, H, W, C] in [−1, 1]; 'labels'
Metrics = dict[str, Array]
Call = Callable[..., Any]  # The arguments of a network's module → its output.


class Nets(Protocol):
  """The networks of a variant as a loss calls them, quantized.

  Attributes:
    hyperparameters: the variant's numbers, by name; scalars that may be traced.
      Those that it adapts are among them.
  """

  hyperparameters: Mapping[str, Any]

  def __getitem__(self, name: str) -> Call:
    """The network of a name: called like its module."""

  def frozen(self, name: str) -> Call:
    """The same; its calls update neither ranges nor statistics."""

  def draw(
    self,
    draw: Callable[[Array, tuple[int, ...]], Array],
    key: Array,
    shape: tuple[int, ...] = (),
    rows: int | None = None,
  ) -> Array:
    """Random numbers for every example, the same on any number of devices.

    Args:
      draw: (key, shape) → numbers, such as `jax.random.normal`.
      key: of these numbers.
      shape: of an example's.
      rows: how many examples this device has; those of the batch if None.

    Returns:
      [rows, *shape].
    """

  def first(self, fraction: float) -> tuple[int, Callable[[Array], Array]]:
    """A share of the batch, for a term that is expensive.

    Args:
      fraction: of the examples, up to 1.

    Returns:
      The number n of this device's examples to compute the term on (the first
      n), and a function from the n terms to their mean over the share.
    """


class Round(NamedTuple):
  """One update.

  Attributes:
    trains: names of the networks that it updates.
    loss: (nets, batch, made, key) → (scalar to minimise, metrics).
  """

  trains: tuple[str, ...]
  loss: Callable[[Nets, Batch, Any, Array], tuple[Array, Metrics]]


# (networks by name, hyperparameters, batch, key) → numbers [B] by name.
Measure = Callable[
  [Mapping[str, Call], Mapping[str, Any], Batch, Array], Metrics
]


# (hyperparameters and adapted numbers, the step's metrics, images of a batch
# over all devices) → adapted numbers for the next step.
Adapt = Callable[[Mapping[str, Any], Metrics, int], dict[str, Array]]


def unchanged(nets: Nets, batch: Batch, key: Array) -> Batch:
  """The batch as it is."""
  del nets, key
  return batch


def _nothing(nets: Nets, batch: Batch, key: Array) -> dict[str, Any]:
  del nets, batch, key
  return {}


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
  """The game that is trained: networks, losses, who is updated when.

  Attributes:
    modules: the networks by name, such as 'generator'.
    prefixes: of each network, the letter of its keys and metrics ('g').
    examples: (batch, key) → by network, the arguments that its quantizers are
      fitted to; in float.
    rounds: the updates of a step, in order.
    delivered: name of the network that is drawn from, scored and packed.
    see_images: names of the networks whose first argument is images, of values
      k/127.5 − 1 for bytes k.
    inputs: (keys [N], indices [N]) → arguments of the delivered network for N
      images; an image depends on its own key and index alone. None where it is
      called with images.
    input_channels: of a delivered network that is called with images, how many
      of the channels of a batch's images are its input: the first. The others
      are an image of what it makes. 0 for one that is called with `inputs`.
    prepare: (nets, batch, key) → batch, as `make` and the rounds see it: a
      change at random, such as flips.
    make: (nets, batch, key) → what the rounds share, such as fakes. It is
      computed once for each batch; a round that trains one of `sources` pulls
      its gradient back through it.
    sources: names of the networks that `make` calls.
    repeats: how many batches the first round sees, one after another, each
      with a `make` of its own; the others run once, on the last.
    averaged: names of the networks that have a moving average.
    settings: what else decides what is trained, as JSON can hold it: names of
      losses and the like. A run does not go on with others.
    measure: (networks by name, hyperparameters, batch, key) → numbers of every
      image, [B] by name: scores of held-out images, such as an ELBO, beside
      those of what is drawn. None for no such scores.
    hyperparameters: the numbers that losses read from `nets`, by name; they
      are arrays of the state, so that one compiled step serves all values.
    penalized: names of the networks whose loss has a term that the
      hyperparameter 'penalty_weight' multiplies.
    adapted: numbers that losses read like hyperparameters, by name, as they are
      before the first step; the state keeps them.
    adapt: changes them after each step; None where there are none.
  """

  modules: Mapping[str, nn.Module]
  prefixes: Mapping[str, str]
  examples: Callable[[Batch, Array], Mapping[str, tuple[Any, ...]]]
  rounds: tuple[Round, ...]
  delivered: str
  see_images: tuple[str, ...]
  inputs: Callable[[Array, Array], tuple[Any, ...]] | None = None
  input_channels: int = 0
  prepare: Callable[[Nets, Batch, Array], Batch] = unchanged
  make: Callable[[Nets, Batch, Array], Any] = _nothing
  sources: tuple[str, ...] = ()
  repeats: int = 1
  averaged: tuple[str, ...] = ()
  measure: Measure | None = None
  hyperparameters: Mapping[str, float] = dataclasses.field(default_factory=dict)
  penalized: tuple[str, ...] = ()
  adapted: Mapping[str, float] = dataclasses.field(default_factory=dict)
  adapt: Adapt | None = None
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def digest(self) -> str:
    """What tells this variant from others, as far as it can be told."""
    about = (
      {name: repr(module) for name, module in self.modules.items()},
      dict(self.prefixes),
      [round_.trains for round_ in self.rounds],
      self.delivered,
      self.see_images,
      self.sources,
      self.repeats,
      self.averaged,
      dict(self.hyperparameters),
      self.penalized,
      dict(self.settings),
      *([self.input_channels] if self.input_channels else []),
      *([dict(self.adapted)] if self.adapted else []),
    )
    # Functions among a module's attributes are printed with their address.
    text = re.sub(r' at 0x[0-9a-f]+', '', repr(about))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
