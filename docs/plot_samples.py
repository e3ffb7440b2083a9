"""Draws the same latents with several artifacts, a row each: one picture.

  python docs/plot_samples.py docs/images/heroes.png --columns=14 --scale=3 \
    'float=runs/sweep/bits=32,seed=0/generator.qgan' \
    '8 bits=runs/sweep/bits=8,seed=0/generator.qgan'

What stands before an artifact is its row's label, under which its bytes are
written. The README shows what it makes of the sweep of heroes.
"""

import argparse
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qgan_jax import artifacts
from qgan_jax.artifacts import drawer as drawer_lib
from qgan_jax.artifacts.grids import straight

PAPER, INK = (246, 246, 246), (32, 32, 32)
LABEL = 130  # Pixels on the left.


def row(path: str, columns: int, scale: int) -> Image.Image:
  """The first images of an artifact, side by side and enlarged."""
  drawer = artifacts.open_drawer(path)
  ((images, _),) = drawer_lib.batches(drawer, num=columns, seed=0)
  strip = straight(np.concatenate(list(images), axis=1))
  pixels = Image.fromarray(strip[..., 0] if strip.shape[-1] == 1 else strip)
  width, height = pixels.size
  return pixels.convert('RGBA').resize(
    (width * scale, height * scale), Image.Resampling.NEAREST
  )


def main() -> None:
  """Draws; see the module's docstring."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('out')
  parser.add_argument('rows', nargs='+', metavar='LABEL=ARTIFACT')
  parser.add_argument('--columns', type=int, default=14)
  parser.add_argument('--scale', type=int, default=3)
  options = parser.parse_args()
  named = [text.split('=', 1) for text in options.rows]
  strips = [row(path, options.columns, options.scale) for _, path in named]
  width, height = strips[0].size
  picture = Image.new('RGB', (LABEL + width, height * len(strips)), PAPER)
  draw = ImageDraw.Draw(picture)
  fonts = ImageFont.load_default(22), ImageFont.load_default(15)
  for i, ((label, path), strip) in enumerate(zip(named, strips, strict=True)):
    picture.paste(strip, (LABEL, i * height), strip)
    middle = i * height + height // 2
    size = f'{os.path.getsize(path) / 1000:,.0f} kB'
    draw.text((12, middle - 4), label, INK, fonts[0], anchor='ls')
    draw.text((12, middle + 4), size, INK, fonts[1], anchor='lt')
  picture.save(options.out, optimize=True)


if __name__ == '__main__':
  main()
