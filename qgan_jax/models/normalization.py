"""Normalization: of features by name, with scales of classes; of kernels."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Dtype = Any


def norm(
  name: str, train: bool, dtype: Dtype, *, affine: bool = True
) -> Callable[[Array], Array]:
  """A normalization layer of features [B, H, W, C].

  Args:
    name: 'group', 'instance', 'batch', or 'none' for what returns its features.
    train: whether BatchNorm uses and records this batch's statistics.
    dtype: of the arithmetic.
    affine: whether it has a scale and a shift of each channel.
  """
  options = {'dtype': dtype, 'use_scale': affine, 'use_bias': affine}
  if name == 'group':
    # Groups of eight channels, each normalized within its own sample; of fewer
    # where eight does not divide the channels.
    return lambda x: nn.GroupNorm(
      num_groups=None, group_size=_group_size(x.shape[-1]), **options
    )(x)
  if name == 'instance':
    # Ulyanov et al., https://arxiv.org/abs/1607.08022: each channel of each
    # image by its own mean and variance, in use as in training.
    return nn.InstanceNorm(epsilon=1e-5, **options)
  if name == 'batch':
    return nn.BatchNorm(use_running_average=not train, **options)
  return lambda x: x


def _group_size(channels: int) -> int:
  return max(size for size in range(1, 9) if channels % size == 0)


def apply_layer(
  make: Callable[[], nn.Module], x: Array, *, spectral_norm: bool, train: bool
) -> Array:
  """Applies a layer, with its kernel divided by its largest singular value.

  Miyato et al., https://arxiv.org/abs/1802.05957.

  Args:
    make: the layer; called within the module that it is to belong to.
    x: its input.
    spectral_norm: whether its kernel is divided.
    train: whether the power iteration takes a step.
  """
  if spectral_norm:
    return nn.SpectralNorm(make())(x, update_stats=train)
  return make()(x)


class ConditionalNorm(nn.Module):
  """Normalization with a scale and a shift of each channel and class.

  Conditional BatchNorm of Dumoulin et al., https://arxiv.org/abs/1610.07629,
  as in Miyato and Koyama, https://arxiv.org/abs/1802.05637. Without classes it
  is the normalization alone, whose scales are its own.

  Attributes:
    norm: 'group', 'instance', 'batch' or 'none'.
    num_classes: 0 for none.
    dtype: of the arithmetic.
  """

  norm: str
  num_classes: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, labels: Array | None, train: bool) -> Array:
    """Normalizes features [B, H, W, C] of images with labels [B]."""
    if not self.num_classes:
      return norm(self.norm, train, self.dtype)(x)
    x = norm(self.norm, train, self.dtype, affine=False)(x)
    table = nn.Embed(
      self.num_classes,
      2 * x.shape[-1],
      embedding_init=_around_one,
      dtype=self.dtype,
      name='of_class',
    )(labels)
    scale, shift = jnp.split(table[:, None, None, :], 2, -1)
    return x * scale + shift


def _around_one(
  key: Array, shape: tuple[int, int], dtype: Dtype = jnp.float32
) -> Array:
  """Scales of N(1, 0.02²) and shifts of 0, beside each other."""
  classes, features = shape
  scale = 1 + 0.02 * jax.random.normal(key, (classes, features // 2), dtype)
  return jnp.concatenate([scale, jnp.zeros_like(scale)], -1)
