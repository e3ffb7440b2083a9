"""The residual networks of SNGAN: sums of convolutions and shortcuts.

Miyato et al., https://arxiv.org/abs/1802.05957, with conditional BatchNorm and
a projection discriminator (Miyato and Koyama,
https://arxiv.org/abs/1802.05637) where it is conditional, and self-attention
(Zhang et al., https://arxiv.org/abs/1805.08318) where it is asked for. With
`channels` of 256 in G and 128 in D at 32×32, or 64 in both at 64×64 and
128×128, the parameters are those of the networks in mimicry (Lee and Town,
https://arxiv.org/abs/2005.02494). G upsamples to the nearest pixel.
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.models.attention import largest_map, SelfAttention
from qgan_jax.models.convolution import pointwise_conv
from qgan_jax.models.normalization import apply_layer, ConditionalNorm
from qgan_jax.models.posterior import Posterior
from qgan_jax.models.stages import (
  halve,
  is_small,
  Size,
  stage_sizes,
  stage_widths,
  upsample,
)

Array = jax.Array
Dtype = Any
# Glorot's, with a gain of √2 in front of a ReLU.
_INIT = nn.initializers.glorot_uniform()
_RELU_INIT = nn.initializers.variance_scaling(2, 'fan_avg', 'uniform')


def _conv(features: int, name: str, dtype: Dtype, size: int = 3) -> nn.Conv:
  init = _RELU_INIT if size == 3 else _INIT
  return nn.Conv(
    features,
    (size, size),
    kernel_init=init,
    dtype=dtype,
    conv_general_dilated=pointwise_conv,
    name=name,
  )


class UpBlock(nn.Module):
  """A residual block that doubles the sides of its features.

  Attributes:
    features: channels of the result.
    size: its height and width in pixels.
    norm: 'group', 'batch' or 'none'.
    num_classes: whose scales it has; 0 for none.
    dtype: of the arithmetic.
  """

  features: int
  size: Size
  norm: str
  num_classes: int
  dtype: Dtype

  @nn.compact
  def __call__(self, x: Array, labels: Array | None, train: bool) -> Array:
    """Maps [B, H, W, C] to [B, *size, features]."""

    def normed(x: Array, name: str) -> Array:
      layer = ConditionalNorm(
        self.norm, self.num_classes, self.dtype, name=name
      )
      return nn.relu(layer(x, labels, train))

    h = upsample(normed(x, 'norm0'), self.size)
    h = _conv(self.features, 'conv0', self.dtype)(h)
    h = _conv(self.features, 'conv1', self.dtype)(normed(h, 'norm1'))
    # A pixel of the shortcut depends on one pixel: it is copied afterwards.
    short = _conv(self.features, 'shortcut', self.dtype, 1)(x)
    return h + upsample(short, self.size)


class Generator(nn.Module):
  """Latents to images.

  Attributes:
    image_size: height and width of the images in pixels; one number where
      they are square.
    image_channels: of the images.
    channels: of the last feature map; see `stage_widths`.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional generator.
    norm: 'batch', 'group' or 'none'.
    attention: whether it has self-attention.
    dtype: of the arithmetic; parameters are float32.
  """

  image_size: int | Size = 32
  image_channels: int = 3
  channels: int = 256
  latent_dim: int = 128
  num_classes: int = 0
  norm: str = 'batch'
  attention: bool = False
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
    first, *sizes = stage_sizes(self.image_size)[::-1]
    widths = stage_widths(self.image_size, self.channels)[::-1]
    x = nn.Dense(
      math.prod(first) * widths[0],
      kernel_init=_INIT,
      dtype=self.dtype,
      name='project',
    )(latents.astype(self.dtype))
    x = x.reshape(-1, *first, widths[0])
    for i, (size, width) in enumerate(zip(sizes, widths[1:], strict=True)):
      x = UpBlock(
        width, size, self.norm, self.num_classes, self.dtype, name=f'block{i}'
      )(x, labels, train)
      if self.attention and size == largest_map(self.image_size):
        x = SelfAttention(dtype=self.dtype, name='attention')(x)
    x = ConditionalNorm(self.norm, 0, self.dtype, name='norm')(x, None, train)
    x = nn.Conv(
      self.image_channels,
      (3, 3),
      kernel_init=_INIT,
      dtype=self.dtype,
      name='image',
    )(nn.relu(x))
    return jnp.tanh(x.astype(jnp.float32))


def _shrink(
  module: Any, images: Array, train: bool
) -> tuple[Array, Callable[[Callable[[], nn.Module], Array], Array]]:
  """The residual blocks of a discriminator or an encoder.

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

  def block(i: int, x: Array, features: int, *, halved: bool) -> Array:
    """A residual block; its first one reads the image itself."""
    inside = x.shape[-1] if i else features

    def conv(which: str, features: int, size: int, x: Array) -> Array:
      name = f'block{i}_{which}'
      return layer(lambda: _conv(features, name, module.dtype, size), x)

    h = conv('conv0', inside, 3, nn.relu(x) if i else x)
    h = conv('conv1', features, 3, nn.relu(h))
    if halved or x.shape[-1] != features:
      x = conv('shortcut', features, 1, x)
    # The mean of a sum is the sum of means, and computed once.
    return halve(h + x) if halved else h + x

  size = images.shape[1:3]
  widths = stage_widths(size, module.channels)
  halvings = len(widths) - (2 if is_small(size) else 1)
  x = images.astype(module.dtype)
  for i, width in enumerate(widths):
    x = block(i, x, width, halved=i < halvings)
    if module.attention and i < halvings and x.shape[1:3] == largest_map(size):
      x = SelfAttention(module.spectral_norm, module.dtype, name='attention')(
        x, train=train
      )
  return nn.relu(x), layer


class Discriminator(nn.Module):
  """Images to logits.

  Attributes:
    channels: of the first feature map; see `stage_widths`.
    num_classes: 0 for an unconditional discriminator.
    spectral_norm: whether every kernel is divided by its largest singular
      value.
    attention: whether it has self-attention.
    with_features: whether it returns its last feature map, too.
    dtype: of the arithmetic; parameters are float32.
  """

  channels: int = 128
  num_classes: int = 0
  spectral_norm: bool = True
  attention: bool = False
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
      train: whether spectral norm takes a step of its power iteration.

    Returns:
      logits [B], float32; higher is more real. With features, these are
      second, [B, h, w, c].
    """
    features, layer = _shrink(self, images, train)
    x = features.sum((1, 2))

    def dense(name: str, outputs: int, *, use_bias: bool) -> Array:
      def make() -> nn.Module:
        return nn.Dense(
          outputs,
          use_bias=use_bias,
          kernel_init=_INIT,
          dtype=self.dtype,
          name=name,
        )

      return layer(make, x)

    logits = dense('logit', 1, use_bias=True)[:, 0]
    if labels is not None and self.num_classes:
      classes = dense('classes', self.num_classes, use_bias=False)
      logits += jnp.take_along_axis(classes, labels[:, None], axis=1)[:, 0]
    logits = logits.astype(jnp.float32)
    return (logits, features) if self.with_features else logits


class Encoder(nn.Module):
  """Images to the distribution of their latents.

  Attributes:
    channels: of the first feature map; see `stage_widths`.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional encoder.
    spectral_norm: whether every kernel of its blocks is divided by its largest
      singular value.
    attention: whether it has self-attention.
    dtype: of the arithmetic; parameters are float32.
  """

  channels: int = 128
  latent_dim: int = 128
  num_classes: int = 0
  spectral_norm: bool = False
  attention: bool = False
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
