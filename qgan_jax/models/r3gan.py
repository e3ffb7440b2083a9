"""The networks of R3GAN, small: residual blocks without any normalization.

Huang et al., https://arxiv.org/abs/2501.05441, section 4 and appendix B:
inverted bottlenecks with a grouped convolution, bilinear resampling, and an
initialization that takes the place of normalization (Zhang et al.,
https://arxiv.org/abs/1901.09321). The widths of a stage are those of `resnet`.
It is made for the relativistic loss with R1 and R2: `loss=relativistic`,
`penalty=r1_r2`.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.models.convolution import grouped_conv, pointwise_conv
from qgan_jax.models.stages import (
  interpolate,
  Size,
  smooth_halve,
  stage_sizes,
  stage_widths,
)

Array = jax.Array
Dtype = Any
_SLOPE = 0.2
_EXPANSION = 2  # Of the channels inside of a block.
_GROUP = 16  # Channels of a group there, in the paper's networks.
# The square of a leaky ReLU's gain.
_GAIN = 2 / (1 + _SLOPE**2)
_LINEAR = nn.initializers.variance_scaling(1, 'fan_in', 'normal')


class Block(nn.Module):
  """x + conv(act(grouped conv(act(conv(x))))), which starts as x.

  Attributes:
    depth: residual blocks of the whole network, which decides how its weights
      start.
    dtype: of the arithmetic.
  """

  depth: int
  dtype: Dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps [B, H, W, C] to the same shape."""
    expanded = _EXPANSION * x.shape[-1]
    init = nn.initializers.variance_scaling(
      _GAIN / math.sqrt(self.depth), 'fan_in', 'normal'
    )
    conv = functools.partial(nn.Conv, dtype=self.dtype, kernel_init=init)
    y = conv(
      expanded, (1, 1), conv_general_dilated=pointwise_conv, name='expand'
    )(x)
    y = conv(
      expanded,
      (3, 3),
      feature_group_count=math.gcd(expanded, max(1, expanded // _GROUP)),
      conv_general_dilated=grouped_conv,
      name='grouped',
    )(nn.leaky_relu(y, _SLOPE))
    y = nn.Conv(
      x.shape[-1],
      (1, 1),
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      conv_general_dilated=pointwise_conv,
      name='contract',
    )(nn.leaky_relu(y, _SLOPE))
    return x + y


def _linear(features: int, name: str, dtype: Dtype) -> nn.Conv:
  """A 1×1 convolution without a bias, between stages."""
  return nn.Conv(
    features,
    (1, 1),
    use_bias=False,
    dtype=dtype,
    kernel_init=_LINEAR,
    conv_general_dilated=pointwise_conv,
    name=name,
  )


class Generator(nn.Module):
  """Latents to images.

  Attributes:
    image_size: height and width of the images in pixels; one number where
      they are square.
    image_channels: of the images.
    channels: of the last feature map; see `stage_widths`.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional generator.
    blocks: residual blocks of a stage.
    dtype: of the arithmetic; parameters are float32.
  """

  image_size: int | Size = 32
  image_channels: int = 3
  channels: int = 64
  latent_dim: int = 64
  num_classes: int = 0
  blocks: int = 2
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, latents: Array, labels: Array | None = None) -> Array:
    """Draws images.

    Args:
      latents: [B, latent_dim], standard normal.
      labels: [B], int32; only where `num_classes` > 0.

    Returns:
      [B, *image_size, image_channels] float32, of images in [−1, 1];
      nothing keeps them there.
    """
    first, *sizes = stage_sizes(self.image_size)[::-1]
    widths = stage_widths(self.image_size, self.channels)[::-1]
    depth = self.blocks * len(widths)
    x = latents.astype(self.dtype)
    if self.num_classes:
      coded = jax.nn.one_hot(labels, self.num_classes, dtype=x.dtype)
      x = jnp.concatenate([x, coded], -1)
    x = nn.Dense(
      widths[0],
      use_bias=False,
      dtype=self.dtype,
      kernel_init=_LINEAR,
      name='project',
    )(x)
    # A picture for each channel, as strong as the latents say.
    basis = self.param(
      'basis', nn.initializers.normal(1.0), (*first, widths[0])
    )
    x = x[:, None, None, :] * basis.astype(x.dtype)
    for i, width in enumerate(widths):
      if i:
        if width != x.shape[-1]:
          x = _linear(width, f'width{i}', self.dtype)(x)
        x = interpolate(x, sizes[i - 1])
      for j in range(self.blocks):
        x = Block(depth, self.dtype, name=f'stage{i}_block{j}')(x)
    x = _linear(self.image_channels, 'image', self.dtype)(x)
    return x.astype(jnp.float32)


class Discriminator(nn.Module):
  """Images to logits.

  Attributes:
    channels: of the first feature map; see `stage_widths`.
    num_classes: 0 for an unconditional discriminator.
    blocks: residual blocks of a stage.
    dtype: of the arithmetic; parameters are float32.
  """

  channels: int = 64
  num_classes: int = 0
  blocks: int = 2
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, images: Array, labels: Array | None = None) -> Array:
    """Judges images.

    Args:
      images: [B, H, W, C] in [−1, 1].
      labels: [B], int32; only where `num_classes` > 0.

    Returns:
      logits [B], float32; higher is more real.
    """
    widths = stage_widths(images.shape[1:3], self.channels)
    depth = self.blocks * len(widths)
    x = _linear(widths[0], 'extract', self.dtype)(images.astype(self.dtype))
    for i, width in enumerate(widths):
      if i:
        x = smooth_halve(x)
        if width != x.shape[-1]:
          x = _linear(width, f'width{i}', self.dtype)(x)
      for j in range(self.blocks):
        x = Block(depth, self.dtype, name=f'stage{i}_block{j}')(x)
    # How much of each channel's picture there is.
    x = nn.Conv(
      width,
      x.shape[1:3],
      padding='VALID',
      feature_group_count=width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=_LINEAR,
      conv_general_dilated=grouped_conv,
      name='basis',
    )(x)[:, 0, 0]

    def dense(name: str, features: int) -> Array:
      return nn.Dense(
        features,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=_LINEAR,
        name=name,
      )(x)

    logits = dense('logit', 1)[:, 0]
    if labels is not None and self.num_classes:
      classes = dense('classes', self.num_classes)
      logits += jnp.take_along_axis(classes, labels[:, None], axis=1)[:, 0]
    return logits.astype(jnp.float32)
