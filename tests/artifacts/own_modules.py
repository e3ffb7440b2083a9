"""Networks of one's own, of which tests make files."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.post_training import quantize


class Attending(nn.Module):
  """Latents to images, with attention and a parameter of its own."""

  size: int = 4
  widths: tuple[int, ...] = (6,)
  activation: Callable = nn.relu  # JSON cannot hold it, and need not.

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(self.size**2 * self.widths[0], name='project')(z)
    x = x.reshape(-1, self.size**2, self.widths[0])
    x = x + nn.MultiHeadDotProductAttention(2, name='attend')(x, x)
    codes = self.param('codes', nn.initializers.normal(0.3), (x.shape[-1], 1))
    x = nn.tanh(self.activation(x) @ codes)
    return x.reshape(-1, self.size, self.size, 1)


class Outer:
  """A name space."""

  class Conditional(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, z, labels, train):
      x = jnp.concatenate([z, jax.nn.one_hot(labels, self.num_classes)], -1)
      x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x))
      return nn.tanh(nn.Dense(16)(x)).reshape(-1, 4, 4, 1)


class Filter(nn.Module):
  """Images to images."""

  @nn.compact
  def __call__(self, images):
    return images + nn.Conv(1, (3, 3))(images)


RNG = np.random.default_rng(0)
LATENTS = RNG.standard_normal((40, 5), np.float32)
LABELS = np.arange(40) % 3  # Of 64 bits, which JAX makes 32.
IMAGES = RNG.standard_normal((8, 4, 4, 1)).astype(np.float32)


def quantized(module, *inputs, **kwargs):
  kwargs = {'bit_width': 4, 'calibrate': inputs} | kwargs
  init = jax.jit(
    lambda *args: (
      module.init(jax.random.key(0), *args)
      if not isinstance(module, Outer.Conditional)
      else module.init(jax.random.key(0), *args, False)
    )
  )
  return quantize((module, init(*inputs)), **kwargs)


def make_attending():
  """`Attending`, of whose weights two have other bits than the rest."""
  return quantized(
    Attending(widths=(8,)), LATENTS,
    rules='generator/weights/codes: bits=3; generator/weights/project: bits=2',
  )  # fmt: skip
