"""What a variant is: networks, and the losses that train them.

A variant holds only the mathematics. The training step quantizes the networks,
takes gradients, averages them over devices, applies the optimizers and keeps
the moving averages.
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
# 'images', float [B, H, W, C] in [−1, 1], and maybe 'labels', int [B].
Batch = Mapping[str, Any]
Metrics = dict[str, Array]
# Calls a network: takes the arguments of its module, and returns its output.
Call = Callable[..., Any]


class Nets(Protocol):
  """The networks of a variant, quantized, in the form that losses get them.

  Attributes:
    hyperparameters: the variant's numbers, by name, including those that it
      adapts; scalars that may be traced.
  """

  hyperparameters: Mapping[str, Any]

  def __getitem__(self, name: str) -> Call:
    """The network of this name; it is called like its module."""

  def frozen(self, name: str) -> Call:
    """The same network; its calls update neither ranges nor statistics."""

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
      key: random key for these numbers.
      shape: of the numbers of one example.
      rows: how many examples this device has; None for those of the batch.

    Returns:
      [rows, *shape].
    """

  def first(self, fraction: float) -> tuple[int, Callable[[Array], Array]]:
    """A share of the batch, for a term that is expensive to compute.

    Args:
      fraction: share of the examples, up to 1.

    Returns:
      The number n of this device's examples to compute the term for (the first
      n), and a function from the n terms to their mean over the share.
    """


class Round(NamedTuple):
  """One update of one or more networks.

  Attributes:
    trains: names of the networks that it updates.
    loss: (nets, batch, made, key) → (scalar to minimise, metrics). `made` is
      what `Variant.make` returned.
  """

  trains: tuple[str, ...]
  loss: Callable[[Nets, Batch, Any, Array], tuple[Array, Metrics]]


# Takes the networks by name, hyperparameters, a batch and a random key; returns
# a number for each image, [B], by the name of the measure.
Measure = Callable[
  [Mapping[str, Call], Mapping[str, Any], Batch, Array], Metrics
]


# Takes hyperparameters, among them the adapted numbers, the step's metrics, and
# the number of images that the first round has seen on all devices; returns the
# adapted numbers of the next step.
Adapt = Callable[[Mapping[str, Any], Metrics, int], dict[str, Array]]


def unchanged(nets: Nets, batch: Batch, key: Array) -> Batch:
  """Returns the batch as it is."""
  del nets, key
  return batch


def _nothing(nets: Nets, batch: Batch, key: Array) -> dict[str, Any]:
  del nets, batch, key
  return {}


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
  """What is trained: networks, their losses, and the order of updates.

  Attributes:
    modules: the networks by name, such as 'generator'.
    prefixes: for each network, the prefix of its keys and metrics ('g').
    examples: (batch, key) → for each network, arguments of a call, to which its
      quantizers are fitted; in float.
    rounds: the updates of a step, in order.
    delivered: name of the network that is drawn from, scored and packed.
    see_images: names of the networks whose first argument is images with the
      values k/127.5 − 1 of bytes k.
    inputs: (keys [N], classes [N]) → arguments of the delivered network for N
      images. An image depends on its own key and class alone. Classes are whole
      numbers from 0 up, to be taken modulo the number of classes; where classes
      come in turn, they are just 0, 1, 2… None if the network takes images.
    input_channels: if the delivered network takes images, how many channels of
      a batch's images are its input: the first ones. The other channels are an
      image of the kind that it makes. 0 if it is called with `inputs`.
    prepare: (nets, batch, key) → the batch that `make` and the rounds get, for
      random changes such as flips.
    make: (nets, batch, key) → what the rounds share, such as fakes. It is
      computed once for each batch. A round that trains one of `sources` gets
      its gradient through it.
    sources: names of the networks that `make` calls.
    repeats: how many batches the first round runs on, one after another, with a
      new `make` for each. The other rounds run once, on the last batch.
    averaged: names of the networks that have a moving average.
    settings: everything else that decides what is trained, such as names of
      losses, in a form that JSON can hold. A run cannot be continued with other
      settings.
    measure: (networks by name, hyperparameters, batch, key) → numbers for every
      image, [B] by name. They are scores of held-out images, such as an ELBO,
      in addition to those of drawn images. None for no such scores.
    hyperparameters: the numbers that losses read from `nets`, by name. They are
      arrays in the training state, so one compiled step serves all values.
    penalized: names of the networks whose loss has a term with the factor
      'penalty_weight' (a hyperparameter).
    adapted: initial values, by name, of numbers that losses read like
      hyperparameters and that change in training; kept in the training state.
    adapt: computes their new values after each step; None if there are none.
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
    """12 hexadecimal digits that identify the variant, as far as possible.

    It does not depend on the code of functions, such as losses.
    """
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
