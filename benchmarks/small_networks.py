"""The networks of `endurance.py`: so small that a run takes seconds."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Generator(nn.Module):
  """Latents [B, D] to images [B, S, S, C]."""

  image_size: int
  image_channels: int

  @nn.compact
  def __call__(self, latents: jax.Array) -> jax.Array:
    """Draws images."""
    size, channels = self.image_size, self.image_channels
    x = nn.relu(nn.Dense(16)(latents))
    x = jnp.tanh(nn.Dense(size * size * channels)(x))
    return x.reshape(-1, size, size, channels)


class Discriminator(nn.Module):
  """Images [B, S, S, C] to logits [B]."""

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Judges images."""
    x = nn.leaky_relu(nn.Dense(16)(images.reshape(len(images), -1)))
    return nn.Dense(1)(x)[:, 0]
