"""DCGAN on your own images, in a folder, .zip or .tar, fitted into 64×64.

  python -m qgan_jax.main --config=images:dir=/path/to/images

docs/data.md explains what the folder or archive may hold, and what the keys
group, fit, pixel_art and image_channels do.

docs/results.md compares learning rates, augmentations and numbers of pictures,
after short training. The whole run has not been made: it takes a night on two
cores. Begin with image_size=32,steps=6000.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='images',
    source='folder',
    image_size=64,
    steps=20_000,
    batch_size=64,
    latent_dim=128,
  )
  return override(config, arg)


def sweep(add):
  """Float against 8 and 4 bits; the folder comes as --config.data.dir."""
  for bits in (32, 8, 4):
    add(f'bits={bits},seed=0')
