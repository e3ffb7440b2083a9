"""pix2pix on TinyHero's sprites, 32×32 RGBA: the back from the front.

  python -m qgan_jax.main \
    --config=heroes_pairs:dir=/path/to/pixel-heroes.zip,bits=8

The archive is that of `heroes`: 912 heroes seen from four sides, with the same
file names in the folders 0 (back), 1, 2 (front) and 3. A U-Net makes the back
view of a hero from the front view:

  python -m qgan_jax.sample --artifact=runs/heroes_pairs/…/generator.qgan \
    --images=fronts/ --out=backs/

In its inputs and outputs, colours are multiplied by alpha. In training, pairs
are mirrored half of the time. 826 pairs are trained on, and 86 are held out:
L1, PSNR and SSIM compare the back of each with the one made from its front.

After 4,000 steps (4 minutes on one core of an AMD EPYC), the backs have a PSNR
of 28.5 dB in float and 27.8 dB at 4 bits. docs/results.md shows them.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='heroes_pairs',
    source='folder',
    pairs='2/0',
    image_size=32,
    image_channels=4,
    pixel_art=True,
    flip=True,
    variant='pix2pix',
    model='unet',
    norm='instance',
    penalty='none',
    steps=20_000,
    batch_size=16,
  )
  return override(config, arg)


def sweep(add):
  """Float against 8, 4 and 2 bits; the data come as --config.data.dir."""
  for bits in (32, 8, 4, 2):
    add(f'bits={bits},seed=0')
