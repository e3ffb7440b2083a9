"""Draws images from a quantized network, and describes it in words."""

import math
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params
import numpy as np

from qgan_jax.artifacts.drawer import (
  BATCH,
  checked_inputs,
  image_shape_of,
  part_of,
)
from qgan_jax.precision import FLOAT_BITS, Quantized, QuantizerSpec
from qgan_jax.precision.spec import Width


def images(network: Quantized, *inputs: Any) -> np.ndarray:
  """Draws images with quantized weights and activations.

  They are drawn in batches of 64, or fewer above 64×64 pixels. The last batch
  is filled up, so that one compiled program serves any number of latents. A
  single latent has a program of its own, which takes a fraction of the time.
  With dynamic ranges of the activations, an image depends on the others in its
  batch.

  Args:
    network: as `load` returns it, with known `inputs`.
    *inputs: what it is called with, [N, …] each, N > 0: latents, and labels if
      it is conditional. None stands for an input that it does not have.

  Returns:
    Its output on the host, [N, …]: of a generator, float32 [N, H, W, C] in
    [−1, 1].

  Raises:
    ValueError: the inputs do not have the shapes of the network's, or labels
      are out of range.
  """
  given = checked_inputs(
    [x for x in inputs if x is not None],
    network.inputs or (),
    classes_of(network),
  )
  count = len(given[0])
  batches = []
  batch = 1 if count == 1 else _part(network)
  for start in range(0, count, batch):
    # Filled with its own rows, which leave a dynamic range as it is.
    size = min(batch, count - start)
    rows = start + np.arange(batch) % size
    drawn = run(network, *(x[rows] for x in given))
    batches.append(np.asarray(drawn)[:size])
  return np.concatenate(batches)


@jax.jit
def run(network: Quantized, *inputs: Any) -> Any:
  """Runs the network on one batch."""
  return network(*inputs)


def outputs_of(network: Quantized) -> list[tuple[int, ...]]:
  """Shapes of all that a network gives for one example."""
  drawn = jax.eval_shape(run, network, *_batch(network, BATCH))
  return [x.shape[1:] for x in jax.tree.leaves(drawn)]


def memory_of(network: Quantized) -> int:
  """Bytes that the largest operation of `images` reads and writes.

  The network is only traced: nothing is computed.
  """
  batch = _batch(network, _part(network))
  return _largest(run.trace(network, *batch).jaxpr.jaxpr)


def _part(network: Quantized) -> int:
  """How many images it makes at a time."""
  return part_of(outputs_of(network)[0])


def _batch(network: Quantized, size: int) -> list[jax.ShapeDtypeStruct]:
  """What so many examples of its inputs look like."""
  return [
    jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    for x in network.example()
  ]


def _largest(jaxpr: Any) -> int:
  most = 0
  for equation in jaxpr.eqns:
    values = {id(x): x.aval for x in (*equation.invars, *equation.outvars)}
    size = sum(
      math.prod(aval.shape) * aval.dtype.itemsize for aval in values.values()
    )
    most = max(most, size, *map(_largest, jaxprs_in_params(equation.params)))
  return most


def classes_of(network: Quantized) -> int:
  """Number of classes of the network's labels; 0 if its module has none."""
  module: Any = network.module
  classes = getattr(module, 'num_classes', 0)
  return classes if type(classes) is int else 0


def latents_of(network: Quantized) -> tuple[int, int] | None:
  """(length of a latent, number of classes or 0) of a generator.

  None for a network whose inputs are anything but a latent, and a label if its
  module has an attribute `num_classes`.
  """
  shapes = [x.shape for x in network.inputs or ()]
  classes = classes_of(network)
  if shapes[1:] != [()] * (classes > 0) or len(shapes[0]) != 1:
    return None
  return shapes[0][0], classes


def images_of(network: Quantized) -> tuple[int, ...] | None:
  """(H, W, C) of the image that a network takes; None for other networks."""
  return image_shape_of([x.shape for x in network.inputs or ()])


def describe(network: Quantized) -> str:
  """Quantizers and bits of a network, in words."""
  precision, bits = network.precision, network.bits
  return (
    f'weights {_describe(precision.weights, bits.weights)}, '
    f'activations {_describe(precision.activations, bits.activations)}'
  )


def _describe(spec: QuantizerSpec | None, bits: Width) -> str:
  if isinstance(bits, dict):
    least, most = (f'{f(bits.values()):g}' for f in (min, max))
    return f'{least} bits' if least == most else f'{least} to {most} bits'
  if spec is None or bits >= FLOAT_BITS:
    return 'float32'
  if spec.name == 'grid':  # Its bits are the exponent of the step.
    return f'on a grid of step 2^{bits:g}'
  return f'{bits:g}-bit {spec.name}'
