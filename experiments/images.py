"""DCGAN on your own images, in a folder, .zip or .tar, fitted into 64×64.

  python -m qgan_jax.main --config=images:dir=/path/to/images

docs/data.md explains what the folder or archive may hold, and what the keys
group, fit, pixel_art and image_channels do.

Not measured yet: neither time nor score.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='images',
    source='folder',
    image_size=64,
    steps=50_000,
    batch_size=64,
    learning_rate=2e-4,
    latent_dim=128,
  )
  return override(config, arg)


def sweep(add):
  """Float against 8 and 4 bits; the folder comes as --config.data.dir."""
  for bits in (32, 8, 4):
    add(f'bits={bits},seed=0')
