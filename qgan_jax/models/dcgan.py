"""DCGAN: strided convolutions all the way, from 4×4 pixels up.

Radford et al., https://arxiv.org/abs/1511.06434, with a projection
discriminator (Miyato and Koyama, https://arxiv.org/abs/1802.05637) where it is
conditional. Images of any size from 5 pixels up, square or not: each stage has
half of the sides of the one before, rounded up, as 28 → 14 → 7 → 4.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.models.convolution import conv4, PixelConv, UpConv
from qgan_jax.models.normalization import apply_layer, norm
from qgan_jax.models.posterior import Posterior
from qgan_jax.models.stages import Size, stage_sizes

Array = jax.Array
Dtype = Any
_INIT = nn.initializers.normal(0.02)


class Generator(nn.Module):
  """Latents to images.

  Attributes:
    image_size: height and width of the images in pixels; one number where
      they are square.
    image_channels: of the images.
    channels: of the last feature map; twice as many a stage before.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional generator.
    norm: 'group', 'batch' or 'none'.
    dtype: of the arithmetic; parameters are float32.
  """

  image_size: int | Size = 28
  image_channels: int = 1
  channels: int = 32
  latent_dim: int = 64
  num_classes: int = 0
  norm: str = 'group'
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, latents: Array, labels: Array | None = None, *, train: bool = False
  ) -> Array:
    """Draws images.

    Args:
      latents: [B, latent_dim], standard normal.
      labels: [B], int32; only where `num_classes` > 0.
      train: whether BatchNorm uses and records this batch's statistics.

    Returns:
      [B, *image_size, image_channels] float32 in [−1, 1].
    """
    sizes = stage_sizes(self.image_size)[::-1]
    x = latents.astype(self.dtype)
    if self.num_classes:
      x = jnp.concatenate(
        [x, jax.nn.one_hot(labels, self.num_classes, dtype=x.dtype)], -1
      )
    # A transposed convolution from one pixel, as in the paper. A dense layer
    # would have an output channel, and so a scale, for every pixel.
    x = PixelConv(
      self.channels << (len(sizes) - 2),
      # No more than what the next stage sees.
      kernel_size=tuple(min(4, side + 1) for side in sizes[0]),
      dtype=self.dtype,
      name='project',
    )(x[:, None, None, :])
    for i, size in enumerate(sizes[1:]):
      x = norm(self.norm, train, self.dtype)(x)
      x = nn.relu(x)
      last = size == sizes[-1]
      features = (
        self.image_channels if last else self.channels << (len(sizes) - 3 - i)
      )
      x = UpConv(features, dtype=self.dtype, name=f'up{i}')(x)
      x = x[:, : size[0], : size[1]]
    return jnp.tanh(x.astype(jnp.float32))


def _shrink(
  module: Any, images: Array, train: bool
) -> tuple[Array, Callable[[Callable[[], nn.Module], Array], Array]]:
  """The strided convolutions of a discriminator or an encoder.

  Args:
    module: it, in its compact call.
    images: [B, H, W, C].
    train: as in that call.

  Returns:
    (features of a few pixels, what applies a layer as the module does).
  """
  layer = functools.partial(
    apply_layer, spectral_norm=module.spectral_norm, train=train
  )
  x = images.astype(module.dtype)
  for i in range(len(stage_sizes(images.shape[1:3])) - 1):
    down = functools.partial(
      conv4, module.channels << i, 2, module.dtype, f'down{i}'
    )
    x = layer(down, x)
    if i > 0:
      x = norm(module.norm, train, module.dtype)(x)
    x = nn.leaky_relu(x, 0.2)
  return x, layer


class Discriminator(nn.Module):
  """Images to logits.

  Attributes:
    channels: of the first feature map; twice as many a stage after.
    num_classes: 0 for an unconditional discriminator.
    norm: 'group', 'batch' or 'none'.
    spectral_norm: whether every kernel is divided by its largest singular
      value (Miyato et al., https://arxiv.org/abs/1802.05957).
    with_features: whether it returns its last feature map, too.
    dtype: of the arithmetic; parameters are float32.
  """

  channels: int = 32
  num_classes: int = 0
  norm: str = 'none'
  spectral_norm: bool = False
  with_features: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, images: Array, labels: Array | None = None, *, train: bool = False
  ) -> Array | tuple[Array, Array]:
    """Judges images.

    Args:
      images: [B, H, W, C] in [−1, 1].
      labels: [B], int32; only where `num_classes` > 0.
      train: whether BatchNorm uses and records this batch's statistics, and
        spectral norm takes a step of its power iteration.

    Returns:
      logits [B], float32; higher is more real. With features, these are
      second, [B, h, w, c].
    """
    features, layer = _shrink(self, images, train)

    def dense(name, outputs):
      return lambda: nn.DenseGeneral(
        outputs,
        axis=(-3, -2, -1),
        kernel_init=_INIT,
        dtype=self.dtype,
        name=name,
      )

    logits = layer(dense('logit', 1), features)[:, 0]
    if labels is not None and self.num_classes:
      classes = layer(dense('classes', self.num_classes), features)
      logits += jnp.take_along_axis(classes, labels[:, None], axis=1)[:, 0]
    logits = logits.astype(jnp.float32)
    return (logits, features) if self.with_features else logits


class Encoder(nn.Module):
  """Images to the distribution of their latents.

  Attributes:
    channels: of the first feature map; twice as many a stage after.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional encoder.
    norm: 'group', 'batch' or 'none'.
    spectral_norm: whether every kernel is divided by its largest singular
      value.
    dtype: of the arithmetic; parameters are float32.
  """

  channels: int = 32
  latent_dim: int = 64
  num_classes: int = 0
  norm: str = 'none'
  spectral_norm: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, images: Array, labels: Array | None = None, *, train: bool = False
  ) -> tuple[Array, Array]:
    """Encodes images.

    Args:
      images: [B, H, W, C] in [−1, 1].
      labels: [B], int32; only where `num_classes` > 0.
      train: as in `Discriminator`.

    Returns:
      Mean and logarithm of the variance, [B, latent_dim] each, float32.
    """
    x, _ = _shrink(self, images, train)
    return Posterior(
      self.latent_dim, self.num_classes, self.dtype, name='posterior'
    )(x, labels)
