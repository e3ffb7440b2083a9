"""A generator and a discriminator of someone who knows nothing of us."""

import flax.linen as nn
import jax.numpy as jnp


class Generator(nn.Module):
  image_size: int
  image_channels: int

  @nn.compact
  def __call__(self, latents, labels=None):
    size, channels = self.image_size, self.image_channels
    x = nn.relu(nn.Dense(16)(latents))
    x = jnp.tanh(nn.Dense(size * size * channels)(x))
    return x.reshape(-1, size, size, channels)


class Discriminator(nn.Module):
  @nn.compact
  def __call__(self, images, labels=None):
    x = nn.leaky_relu(nn.Dense(16)(images.reshape(len(images), -1)))
    return nn.Dense(1)(x)[:, 0]
