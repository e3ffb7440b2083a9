"""DCGAN on tiles of Dungeon Crawl Stone Soup, 32×32 RGBA, with classes.

  python -m qgan_jax.main \
    --config=tiles:dir=/path/to/crawl-tiles.zip,bits=8

The archive has 4,357 tiles in nested folders. The eight outermost folders are
the classes: floors and walls (dngn), monsters (mon), items, parts of players
and others. With `--label=mon`, qgan_jax.sample draws monsters. Nearly all tiles
are 32×32. Larger ones are cropped to their centre, and smaller ones lie in the
middle of a transparent square. 3,932 are trained on, and 425 are held out.

The data are not part of this project: CC0, github.com/crawl/tiles.

6,000 steps take about ten minutes on a core of an AMD EPYC. Scores and a
picture of them, in float and at 4 bits, are in docs/results.md.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='tiles',
    source='folder',
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
