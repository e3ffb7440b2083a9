"""Latents and labels as inputs of generators."""

from collections.abc import Callable

import jax

from qgan_jax.variants.base import Array, Batch

Inputs = Callable[[Array, Array], tuple[Array, Array | None]]


def labels_of(batch: Batch, num_classes: int) -> Array | None:
  """The labels of a batch, [B]; None without classes.

  Raises:
    ValueError: there are classes and no labels.
  """
  if num_classes and 'labels' not in batch:
    raise ValueError(f'num_classes={num_classes} needs labels')
  return batch['labels'] if num_classes else None


def latent_inputs(latent_dim: int, num_classes: int) -> Inputs:
  """A function for `Variant.inputs`: normal latents, and labels.

  Args:
    latent_dim: length of a latent.
    num_classes: 0 for none.

  Returns:
    (keys [N], classes [N]) → latents [N, latent_dim] and labels [N] or None.
  """

  def inputs(keys: Array, classes: Array) -> tuple[Array, Array | None]:
    latents = jax.vmap(lambda key: jax.random.normal(key, (latent_dim,)))(keys)
    return latents, classes % num_classes if num_classes else None

  return inputs
