"""Variants of generative networks, one file each, and their losses.

A variant is made by a function that returns a `Variant`, such as `gan`.
"""

from qgan_jax.variants.base import Nets, Round, Variant
from qgan_jax.variants.cyclegan import CLASSES as _CYCLEGAN
from qgan_jax.variants.cyclegan import cyclegan
from qgan_jax.variants.gan import CLASSES as _GAN
from qgan_jax.variants.gan import gan
from qgan_jax.variants.pix2pix import CLASSES as _PIX2PIX
from qgan_jax.variants.pix2pix import pix2pix
from qgan_jax.variants.vae import CLASSES as _VAE
from qgan_jax.variants.vae import vae
from qgan_jax.variants.vae_gan import CLASSES as _VAE_GAN
from qgan_jax.variants.vae_gan import vae_gan

# The networks of every variant that a config can name. The value is the name
# under which a network is found in a family of `models`.
CLASSES = {
  'gan': _GAN,
  'vae': _VAE,
  'vae_gan': _VAE_GAN,
  'pix2pix': _PIX2PIX,
  'cyclegan': _CYCLEGAN,
}
# The networks that are made by a family's `Generator`.
GENERATORS = frozenset(
  name
  for classes in CLASSES.values()
  for name, role in classes.items()
  if role == 'Generator'
)
# Variants whose delivered network turns images into images.
FROM_IMAGES = ('pix2pix', 'cyclegan')
# Those of `FROM_IMAGES` that train without pairs.
UNPAIRED = ('cyclegan',)

__all__ = [
  'CLASSES',
  'FROM_IMAGES',
  'GENERATORS',
  'Nets',
  'Round',
  'UNPAIRED',
  'Variant',
  'cyclegan',
  'gan',
  'pix2pix',
  'vae',
  'vae_gan',
]
