"""CycleGAN on TinyHero's sprites, 32×32 RGBA: fronts to backs, without pairs.

  python -m qgan_jax.main \
    --config=heroes_cycle:dir=/path/to/pixel-heroes.zip,bits=8

The archive is that of `heroes_pairs`, which learns the same from pairs; here no
network is told which front and which back are of one hero, and what is held out
are heroes of either side. Four networks are trained:

  generator           fronts to backs; it is what is delivered
  discriminator       backs, real or made
  back_generator      backs to fronts
  back_discriminator  fronts, real or made

Generators are U-Nets; model=translator has the paper's, of residual blocks.

With `heroes_pairs:variant=cyclegan,dropout=0,loss=least_squares,batch_size=8`
the same four networks learn of those pairs, which they are still not told: L1,
PSNR and SSIM then say how near what is made of a front comes to its own back.

Not measured yet: neither time nor score.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='heroes_cycle',
    source='folder',
    domains='2/0',
    group='name',
    image_size=32,
    image_channels=4,
    pixel_art=True,
    flip=True,
    variant='cyclegan',
    model='unet',
    norm='instance',
    dropout=0.0,
    loss='least_squares',
    penalty='none',
    steps=20_000,
    batch_size=8,
    learning_rate=2e-4,
  )
  return override(config, arg)


def sweep(add):
  """Float against 8, 4 and 2 bits; the data come as --config.data.dir."""
  for bits in (32, 8, 4, 2):
    add(f'bits={bits},seed=0')
