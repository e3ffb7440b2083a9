"""U-Net and PatchGAN: networks from images to images, as in pix2pix.

Isola et al., https://arxiv.org/abs/1611.07004, appendix 6.1. Images of any size
from 5 pixels up: each stage has half of the side of the one before, rounded up,
as 28 → 14 → 7 → 4, so that small images have few stages.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.models.convolution import conv4, UpConv
from qgan_jax.models.normalization import apply_layer, norm
from qgan_jax.models.stages import stage_sizes

Array = jax.Array
Dtype = Any
_WIDEST = 8  # Channels of a stage, in those of the first one.
# Maps up to this side are dropped from; larger ones are judged in patches.
_SMALL = 8
_MOST_HALVINGS = 3  # Of the PatchGAN: its patches are then of 70×70 pixels.


class Generator(nn.Module):
  """A U-Net: images to images.

  The way down halves the map stage by stage; on the way up, each stage is
  given the map of the same size from the way down, too.

  Attributes:
    image_channels: of the images that it makes.
    channels: of the first feature map; twice as many a stage after, up to
      eight times as many.
    norm: 'instance', 'group', 'batch' or 'none'.
    dropout: share of the features of small maps on the way up that is dropped
      while training: the noise.
    dtype: of the arithmetic; parameters are float32.
  """

  image_channels: int = 3
  channels: int = 32
  norm: str = 'group'
  dropout: float = 0.5
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, images: Array, *, train: bool = False) -> Array:
    """Translates images.

    Args:
      images: [B, H, W, C] in [−1, 1].
      train: whether features are dropped, and BatchNorm uses and records this
        batch's statistics.

    Returns:
      [B, H, W, image_channels] float32 in [−1, 1].
    """
    sizes = stage_sizes(images.shape[1:3])
    x = images.astype(self.dtype)
    skips: list[Array] = []
    for i in range(len(sizes) - 1):
      down = conv4(_width(self.channels, i), 2, self.dtype, f'down{i}')
      x = down(nn.leaky_relu(x, 0.2) if i else x)
      # Neither the first map is normalized nor the smallest.
      if 0 < i < len(sizes) - 2:
        x = norm(self.norm, train, self.dtype)(x)
      skips.append(x)
    for i in reversed(range(len(sizes) - 1)):
      size, skip = sizes[i], skips.pop()
      # The smallest map is the first on the way up.
      joined = x if x is skip else jnp.concatenate([x, skip], -1)
      x = UpConv(
        _width(self.channels, i - 1) if i else self.image_channels,
        dtype=self.dtype,
        name=f'up{i}',
      )(nn.relu(joined))
      x = x[:, : size[0], : size[1]]
      if i:
        x = norm(self.norm, train, self.dtype)(x)
        if max(size) <= _SMALL:
          x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """A PatchGAN: a logit for each patch of an image.

  Attributes:
    channels: of the first feature map; twice as many a stage after.
    norm: 'instance', 'group', 'batch' or 'none'.
    spectral_norm: whether every kernel is divided by its largest singular
      value.
    dtype: of the arithmetic; parameters are float32.
  """

  channels: int = 32
  norm: str = 'none'
  spectral_norm: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, images: Array, *, train: bool = False) -> Array:
    """Judges images; of a pair, the channels of both stand beside each other.

    Args:
      images: [B, H, W, C] in [−1, 1].
      train: whether BatchNorm uses and records this batch's statistics, and
        spectral norm takes a step of its power iteration.

    Returns:
      logits [B, h, w], float32; higher is more real. Maps are halved up to
      three times, as long as they are larger than 8 pixels.
    """
    layer = functools.partial(
      apply_layer, spectral_norm=self.spectral_norm, train=train
    )
    sizes = [
      size for size in stage_sizes(images.shape[1:3]) if max(size) > _SMALL
    ]
    halvings = min(_MOST_HALVINGS, len(sizes))
    x = images.astype(self.dtype)
    for i in range(halvings + 1):
      stride = 2 if i < halvings else 1
      make = functools.partial(
        conv4, self.channels << i, stride, self.dtype, f'down{i}'
      )
      x = layer(make, x)
      if i > 0:
        x = norm(self.norm, train, self.dtype)(x)
      x = nn.leaky_relu(x, 0.2)
    logits = layer(functools.partial(conv4, 1, 1, self.dtype, 'logits'), x)
    return logits[..., 0].astype(jnp.float32)


def _width(channels: int, stage: int) -> int:
  return min(channels << stage, _WIDEST * channels)
