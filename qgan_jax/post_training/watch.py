"""A look inside a network: what its layers are given and give."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.precision import is_layer, Quantized

Array = jax.Array
PyTree = Any
# Inputs of a layer, and its output, by module path.
LayerIO = dict[str, tuple[Array, Array]]
_BATCH = 64  # Calibration inputs that a network is run on at a time, at most.


def watch(run: Callable[[], Any]) -> LayerIO:
  """What goes into and comes out of every layer that multiplies.

  Args:
    run: runs a network. Inputs are seen as they are before `Precision`
      quantizes them, outputs as quantized weights and inputs make them.

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


def batch_size_for(args: tuple[Any, ...]) -> int:
  """Of as few batches as there may be, which leave out as little as can be."""
  count = len(args[0])
  return count // -(-count // _BATCH)


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
