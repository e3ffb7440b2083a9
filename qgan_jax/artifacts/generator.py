"""A quantized generator that is ready to run, and images from it."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from qgan_jax import models
from qgan_jax.artifacts.drawing import BATCH
from qgan_jax.precision import (
  Bits,
  FLOAT_BITS,
  Learned,
  Precision,
  QuantizerSpec,
)
from qgan_jax.precision.spec import Width

PyTree = Any


@dataclasses.dataclass(frozen=True)
class PackedGenerator:
  """A generator as an artifact holds it, ready to run.

  Attributes:
    model: name of its family in `qgan_jax.models`.
    model_kwargs: attributes of the module.
    variables: {'params': …, and 'batch_stats' where there are any}, float32;
      quantized weights are decoded: do not quantize them again.
    ranges: ranges of the activations by module path, float32 [2] each.
    precision: how it was quantized.
    bits: and to how many bits.
    metadata: where it comes from: data set, configuration, step, seed….
    learned: parameters of learned quantizers of activations; {} for none.
  """

  model: str
  model_kwargs: dict[str, Any]
  variables: PyTree
  ranges: dict[str, np.ndarray]
  precision: Precision
  bits: Bits
  metadata: dict[str, Any]
  learned: Learned = dataclasses.field(default_factory=dict)

  @property
  def module(self) -> nn.Module:
    """The generator's Linen module."""
    return models.make_generator(self.model, **self.model_kwargs)


def images(
  generator: PackedGenerator, latents: Any, labels: Any = None
) -> np.ndarray:
  """Draws images with quantized weights and activations.

  `BATCH` at a time, the last batch filled up, so that one compiled program
  serves every number of latents; one latent alone has a program of its own,
  which takes a fraction of the time. With dynamic ranges of the activations an
  image depends on its batch.

  Args:
    generator: as `load_generator` returns it.
    latents: [N, latent_dim], standard normal, N > 0.
    labels: [N] in [0, num_classes), where the generator is conditional.

  Returns:
    float32 [N, H, W, C] in [−1, 1], on the host.

  Raises:
    ValueError: for latents or labels that are not the generator's.
  """
  module: Any = generator.module
  latents = np.asarray(latents, np.float32)
  if latents.shape != (len(latents), module.latent_dim) or not latents.size:
    raise ValueError(
      f'latents of shape {latents.shape}: [N, {module.latent_dim}] is needed'
    )
  if module.num_classes:
    labels = np.asarray(labels if labels is not None else [], np.int32)
    if labels.shape != latents.shape[:1] or not (
      labels.min() >= 0 and labels.max() < module.num_classes
    ):
      raise ValueError(
        f'labels of shape {labels.shape}: [{len(latents)}] in '
        f'[0, {module.num_classes}) are needed'
      )
  elif labels is not None:
    raise ValueError('labels for a generator without classes')

  batches = []
  batch = 1 if len(latents) == 1 else BATCH
  for start in range(0, len(latents), batch):
    # Filled with its own rows, which leave a dynamic range as it is.
    size = min(batch, len(latents) - start)
    rows = start + np.arange(batch) % size
    drawn = _draw(
      module,
      generator.precision,
      generator.variables,
      generator.ranges,
      generator.bits,
      generator.learned,
      latents[rows],
      None if labels is None else labels[rows],
    )
    batches.append(np.asarray(drawn)[:size])
  return np.concatenate(batches)


def draw(
  module: nn.Module,
  precision: Precision,
  variables: PyTree,
  ranges: Any,
  bits: Bits,
  learned: Learned,
  latents: Any,
  labels: Any,
) -> jax.Array:
  """One batch, from the fields of a `PackedGenerator`; see `images`."""
  drawn, _ = precision.apply(
    module,
    variables,
    ranges,
    bits,
    latents,
    labels,
    learned=learned,
    train=False,
  )
  return drawn


_draw = functools.partial(jax.jit, static_argnums=(0, 1))(draw)


def describe(generator: PackedGenerator) -> str:
  """What a generator is quantized to, for a person."""
  precision, bits = generator.precision, generator.bits
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
