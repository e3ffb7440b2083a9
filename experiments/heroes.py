"""DCGAN on TinyHero's sprites, 32×32 RGBA: heroes seen from four sides.

  python -m qgan_jax.main \
    --config=heroes:dir=/path/to/pixel-heroes.zip,bits=8

The archive has 912 heroes of 64×64 pixels in the folders 0 to 3: one folder for
each view, with the same file names in each. Every other pixel is used. The
networks are conditional on the view. This draws one view and writes sprites
with a transparent background:

  python -m qgan_jax.sample --artifact=runs/heroes/…/generator.qgan \
    --label=2 --num=16 --out=heroes/

The data are not part of this project: TinyHero, CC BY-SA 3.0 / GPL 3,
github.com/AgaMiko/pixel_character_generator.

Because of group=name, heroes are held out with all their views: 3,236 of the
3,648 sprites are trained on, and the 412 views of 103 heroes are held out.
docs/results.md has scores after 6,000 steps at four bit widths.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='heroes',
    source='folder',
    group='name',
    image_size=32,
    image_channels=4,
    pixel_art=True,
    conditional=True,
    steps=20_000,
    batch_size=64,
    latent_dim=64,
  )
  return override(config, arg)


def sweep(add):
  """Float against 8, 4 and 2 bits; the data come as --config.data.dir."""
  for bits in (32, 8, 4, 2):
    add(f'bits={bits},seed=0')
