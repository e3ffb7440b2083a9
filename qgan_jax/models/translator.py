"""CycleGAN's networks: residual blocks from images to images, and a PatchGAN.

Zhu et al., https://arxiv.org/abs/1703.10593, appendix 7.2; the generator is
after Johnson et al., https://arxiv.org/abs/1603.08155. It has the paper's
kernels, and differs from it in two places. Maps are padded with zeros, as every
integer runtime does, and not with their reflection. And they grow by
nearest-neighbour upsampling in front of a 3×3 convolution, and not by one with
fractional strides, whose windows overlap unevenly and show as a checkerboard
(Odena et al., https://distill.pub/2016/deconv-checkerboard).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.models.normalization import norm
from qgan_jax.models.stages import stage_sizes, upsample
from qgan_jax.models.unet import Discriminator

Array = jax.Array
Dtype = Any
_MOST_HALVINGS = 2


def _conv(
  features: int, size: int, dtype: Dtype, name: str, stride: int = 1
) -> nn.Conv:
  return nn.Conv(
    features,
    (size, size),
    (stride, stride),
    kernel_init=nn.initializers.normal(0.02),
    dtype=dtype,
    name=name,
  )


class Block(nn.Module):
  """Features, and added to them what two convolutions make of them.

  Attributes:
    norm: 'instance', 'group', 'batch' or 'none'.
    dtype: of the arithmetic.
  """

  norm: str
  dtype: Dtype

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Maps [B, H, W, C] to [B, H, W, C]."""
    h = _conv(x.shape[-1], 3, self.dtype, 'conv0')(x)
    h = nn.relu(norm(self.norm, train, self.dtype)(h))
    h = _conv(x.shape[-1], 3, self.dtype, 'conv1')(h)
    return x + norm(self.norm, train, self.dtype)(h)


class Generator(nn.Module):
  """Images to images: halved twice, changed by residual blocks, and doubled.

  Sides are rounded up where they are halved; images of 5 to 8 pixels are
  halved once, and smaller ones are not.

  Attributes:
    image_channels: of the images that it makes.
    channels: of the map next to the image; twice as many at each halving.
    blocks: residual blocks, between the halvings and the doublings: the paper
      has 6 up to 128 pixels, and 9 above.
    norm: 'instance', 'group', 'batch' or 'none'.
    dtype: of the arithmetic; parameters are float32.
  """

  image_channels: int = 3
  channels: int = 64
  blocks: int = 6
  norm: str = 'instance'
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, images: Array, *, train: bool = False) -> Array:
    """Translates images.

    Args:
      images: [B, H, W, C] in [−1, 1].
      train: whether BatchNorm uses and records this batch's statistics.

    Returns:
      [B, H, W, image_channels] float32 in [−1, 1].
    """

    def layer(x: Array, stage: int, size: int, name: str, stride: int) -> Array:
      """A convolution to a stage's channels, with what follows it."""
      conv = _conv(self.channels << stage, size, self.dtype, name, stride)
      return nn.relu(norm(self.norm, train, self.dtype)(conv(x)))

    sizes = stage_sizes(images.shape[1:3])[: 1 + _MOST_HALVINGS]
    x = layer(images.astype(self.dtype), 0, 7, 'stem', 1)
    for i in range(len(sizes) - 1):
      x = layer(x, i + 1, 3, f'down{i}', 2)
    for i in range(self.blocks):
      x = Block(self.norm, self.dtype, name=f'block{i}')(x, train)
    for i in reversed(range(len(sizes) - 1)):
      x = layer(upsample(x, sizes[i]), i, 3, f'up{i}', 1)
    x = _conv(self.image_channels, 7, self.dtype, 'image')(x)
    return jnp.tanh(x.astype(jnp.float32))


__all__ = ['Block', 'Discriminator', 'Generator']
