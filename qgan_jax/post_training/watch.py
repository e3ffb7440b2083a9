"""Records the inputs and outputs of the layers inside a network."""

from collections.abc import Callable
from typing import Any

from flax.core import tracers
import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.precision import is_layer, Quantized

Array = jax.Array
PyTree = Any
# The input and the output of each call of a layer, by module path.
LayerIO = dict[str, list[tuple[Array, Array]]]
_BATCH = 64  # Calibration inputs that a network is run on at a time, at most.


def watch(run: Callable[[], Any]) -> LayerIO:
  """Records the inputs and outputs of every layer that multiplies.

  Which layers these are is defined by `precision.is_layer`. Left out are those
  inside of a transformation, such as `nn.scan`, which values cannot leave.

  Args:
    run: a function that runs a network. Inputs are recorded before `Precision`
      quantizes them; outputs are those of the quantized weights and inputs.

  Returns:
    (input, output) of each call by module path, in the order of the first.
  """
  seen: LayerIO = {}
  level = tracers.current_trace()

  def record(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    if is_layer(context) and tracers.current_trace() == level:
      x = args[0] if args else kwargs['inputs']
      seen.setdefault('/'.join(context.module.path), []).append((x, y))
    return y

  with nn.intercept_methods(record):
    run()
  return seen


def call_order(network: Quantized, args: tuple[Any, ...]) -> list[str]:
  """Paths of the layers, in the order in which they are called."""
  order: list[str] = []

  def run(params):
    # A dictionary that leaves a trace is sorted; inside, it is as it came.
    order.extend(watch(lambda: network.run(params, *args)))

  jax.eval_shape(run, network.variables['params'])
  return order


def batch_size_for(args: tuple[Any, ...]) -> int:
  """Batch size for calibration inputs, at most 64.

  It gives the fewest batches possible, and then leaves out the fewest inputs.
  """
  count = len(args[0])
  return count // -(-count // _BATCH)


def batches(args: tuple[Any, ...], size: int) -> list[tuple[Any, ...]]:
  """Splits calibration inputs into full batches; the remainder is left out.

  Args:
    args: arrays [N, …], or None.
    size: of a batch.

  Raises:
    ValueError: there are fewer inputs than one batch.
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
