"""Self-attention over pixels, whose products have sides with names."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.models.convolution import pointwise_conv
from qgan_jax.models.normalization import apply_layer
from qgan_jax.models.stages import Size, stage_sizes

Array = jax.Array
Dtype = Any


class Operand(nn.Module):
  """One side of a product of two arrays that layers have computed.

  It returns what it is given. What looks at a network from outside sees by
  `multiplied` that this is multiplied, as it sees a layer's input, and by what
  name.
  """

  multiplied = True

  def __call__(self, x: Array) -> Array:
    """The same array."""
    return x


def largest_map(image_size: int | Size) -> Size:
  """Size of the feature maps that attention looks at: of at most 32 pixels."""
  inner = stage_sizes(image_size)[1:]
  return next(size for size in inner if max(size) <= 32)


class SelfAttention(nn.Module):
  """Self-attention of Zhang et al., https://arxiv.org/abs/1805.08318.

  As their code and BigGAN's have it: keys and values are max-pooled to a
  quarter of the pixels, and values have half of the channels. It starts as the
  identity, since its factor `gamma` starts at 0.

  Attributes:
    spectral_norm: whether its kernels are divided by their largest singular
      values.
    dtype: of the arithmetic.
  """

  spectral_norm: bool = False
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Adds to features [B, H, W, C] what each pixel sees in the others."""
    b, h, w, c = x.shape

    def project(name: str, features: int, x: Array) -> Array:
      def make() -> nn.Module:
        return nn.Conv(
          features,
          (1, 1),
          use_bias=False,
          dtype=self.dtype,
          conv_general_dilated=pointwise_conv,
          name=name,
        )

      return apply_layer(make, x, spectral_norm=self.spectral_norm, train=train)

    def pooled(x: Array) -> Array:
      return nn.max_pool(x, (2, 2), (2, 2), 'SAME').reshape(b, -1, x.shape[-1])

    narrow, half = max(1, c // 8), max(1, c // 2)
    query = project('query', narrow, x).reshape(b, h * w, narrow)
    key = pooled(project('key', narrow, x))
    value = pooled(project('value', half, x))
    query = Operand(name='queries')(query)
    key = Operand(name='keys')(key)
    weights = nn.softmax(query @ key.swapaxes(1, 2), -1)
    seen = Operand(name='weights')(weights) @ Operand(name='values')(value)
    gamma = self.param('gamma', nn.initializers.zeros, ())
    seen = project('output', c, seen.reshape(b, h, w, half))
    return x + gamma.astype(x.dtype) * seen
