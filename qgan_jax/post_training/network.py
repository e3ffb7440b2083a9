"""A network on its way from float to quantized, and a look inside it."""

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.precision import Bits, is_layer, Learned, Precision

Array = jax.Array
PyTree = Any
# Inputs of a layer, and its output, by module path.
LayerIO = dict[str, tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class Quantized:
  """A network with all that quantizes it.

  Attributes:
    module: any Linen module.
    precision: by which quantizers.
    bits: to how many bits.
    variables: in float; 'params', and other collections.
    ranges: of the activations, [2] by module path.
    learned: parameters of the quantizers that are not fitted anew.
  """

  module: nn.Module
  precision: Precision
  bits: Bits
  variables: dict[str, PyTree]
  ranges: dict[str, Array] = dataclasses.field(default_factory=dict)
  learned: Learned = dataclasses.field(default_factory=dict)

  def replace(self, **changes: Any) -> 'Quantized':
    """A copy with other values of some attributes."""
    return dataclasses.replace(self, **changes)

  def in_float(self) -> 'Quantized':
    """The same network before anything is quantized."""
    return self.replace(precision=Precision())

  def with_float_activations(self) -> 'Quantized':
    """The same with its weights alone quantized."""
    precision = self.precision
    return self.replace(
      precision=dataclasses.replace(
        precision,
        activations=None,
        gradients=None,
        exceptions=tuple(e for e in precision.exceptions if e[0] == 'weights'),
      )
    )

  def weights(self, params: PyTree) -> PyTree:
    """The parameters with every weight quantized."""
    return self.precision.quantize_weights(
      params, self.bits, learned=self.learned
    )

  def run(self, params: PyTree, *args: Any, **kwargs: Any) -> Any:
    """The output, for parameters whose weights are quantized already."""
    output, _ = self.precision.apply(
      self.module,
      {**self.variables, 'params': params},
      self.ranges,
      self.bits,
      *args,
      learned=self.learned,
      **kwargs,
    )
    return output

  def __call__(self, *args: Any) -> Any:
    """The output with quantized weights and activations."""
    return self.run(self.weights(self.variables['params']), *args)


def watch(run: Callable[[], Any]) -> LayerIO:
  """What goes into and comes out of every layer that multiplies.

  Args:
    run: runs a network; what `Precision` quantizes is seen quantized.

  Returns:
    (input, output) by module path, in the order of the calls.
  """
  seen: LayerIO = {}

  def record(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    if is_layer(context):
      x = args[0] if args else kwargs['inputs']
      seen['/'.join(context.module.path)] = (x, y)
    return y

  with nn.intercept_methods(record):
    run()
  return seen


def call_order(network: Quantized, args: tuple[Any, ...]) -> list[str]:
  """The paths of the layers, in the order in which they are called."""
  order: list[str] = []

  def run(params):
    # A dictionary that leaves a trace is sorted; inside, it is as it came.
    order.extend(watch(lambda: network.run(params, *args)))

  jax.eval_shape(run, network.variables['params'])
  return order


def batches(args: tuple[Any, ...], size: int) -> list[tuple[Any, ...]]:
  """Calibration inputs in batches; what is left over is not used.

  Args:
    args: arrays [N, …], or None.
    size: of a batch.

  Raises:
    ValueError: there is not one batch of them.
  """
  count = len(args[0]) // size
  if not count:
    raise ValueError(f'{len(args[0])} inputs are less than a batch of {size}')
  return [
    tuple(
      None if x is None else jnp.asarray(x[i * size : (i + 1) * size])
      for x in args
    )
    for i in range(count)
  ]
