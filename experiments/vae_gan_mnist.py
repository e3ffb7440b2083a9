"""VAE-GAN on MNIST, 28×28 grey: three networks, quantized while they train.

  python -m qgan_jax.main --config=vae_gan_mnist:bits=8,seed=0

`decoder.qgan` draws digits from latents. Keys that begin with g_ apply to the
decoder, those with d_ to the encoder and the discriminator.

docs/results.md has scores after 3,000 steps at five bit widths.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  config = base(
    experiment='vae_gan_mnist',
    source='mnist',
    variant='vae_gan',
    latent_dim=32,
    steps=8_000,
  )
  return override(config, arg)


def sweep(add):
  """Float against four mixtures of widths in one compiled program."""
  for w_bits, a_bits in ((32, 32), (8, 8), (4, 8), (4, 4), (2, 8)):
    add(f'w_bits={w_bits},a_bits={a_bits},seed=0')
