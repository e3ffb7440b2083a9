"""CycleGAN on TinyHero's sprites, 32×32 RGBA: front to back, without pairs.

  python -m qgan_jax.main \
    --config=heroes_cycle:dir=/path/to/pixel-heroes.zip,bits=8

The archive is that of `heroes_pairs`, which learns the same from pairs. Here
training does not use which front and which back belong to the same hero. Heroes
are held out with both views. Four networks are trained:

  generator           makes backs from fronts; this one is delivered
  discriminator       tells real backs from made ones
  back_generator      makes fronts from backs
  back_discriminator  tells real fronts from made ones

The generators are U-Nets. With model=translator they are those of the paper,
which consist of residual blocks.

`heroes_pairs:variant=cyclegan,dropout=0,loss=least_squares,batch_size=8` trains
the same four networks on the pictures of those pairs, still without using which
belong together. L1, PSNR and SSIM then compare the back made from each front
with the real back of the same hero.

docs/results.md has these scores at four bit widths.
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
  )
  return override(config, arg)


def sweep(add):
  """Float against 8, 4 and 2 bits; the data come as --config.data.dir."""
  for bits in (32, 8, 4, 2):
    add(f'bits={bits},seed=0')
