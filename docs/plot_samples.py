"""Draws the same with several artifacts, a row each: one picture.

  python docs/plot_samples.py docs/images/heroes.png --columns=14 --scale=3 \
    'float=runs/sweep/bits=32,seed=0/generator.qgan' \
    '8 bits=runs/sweep/bits=8,seed=0/generator.qgan'

What stands before an artifact is its row's label, under which its bytes are
written. All of them draw from the same latents. Where they are called with
images, these are the first that the run of the first artifact held out, and two
rows above show them and what was wanted. The README shows what this makes of
the sweep of heroes, docs/results.md what it makes of that of pairs.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qgan_jax import artifacts
from qgan_jax.artifacts import drawer as drawer_lib
from qgan_jax.artifacts.grids import straight
from qgan_jax.runs import build
from qgan_jax.runs.folder import read_run

PAPER, INK = (246, 246, 246), (32, 32, 32)
LABEL = 130  # Pixels on the left.


def drawn(path: str, columns: int, given: np.ndarray | None) -> np.ndarray:
  """The first images of an artifact, from latents or from what is given."""
  drawer = artifacts.open_drawer(path)
  if given is not None:
    return drawer_lib.made_of(drawer, given)
  ((images, _),) = drawer_lib.batches(drawer, num=columns, seed=0)
  return images


def pairs_of(path: str, columns: int) -> tuple[np.ndarray, np.ndarray] | None:
  """Held-out inputs and targets of a run; None if it draws from latents."""
  if artifacts.open_drawer(path).input_shape is None:
    return None
  config, _ = read_run(Path(path).parent)
  dataset = build.load_dataset(config, standin=False)
  return dataset.test_inputs[:columns], dataset.test_targets[:columns]


def row(images: np.ndarray, scale: int) -> Image.Image:
  """Images side by side and enlarged."""
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
  pairs = pairs_of(named[0][1], options.columns)
  shown = [
    (
      label,
      f'{os.path.getsize(path) / 1000:,.0f} kB',
      drawn(path, options.columns, pairs and pairs[0]),
    )
    for label, path in named
  ]
  if pairs:
    shown = [('given', '', pairs[0]), ('wanted', '', pairs[1]), *shown]
  strips = [row(images, options.scale) for _, _, images in shown]
  width, height = strips[0].size
  picture = Image.new('RGB', (LABEL + width, height * len(strips)), PAPER)
  draw = ImageDraw.Draw(picture)
  fonts = ImageFont.load_default(22), ImageFont.load_default(15)
  for i, ((label, size, _), strip) in enumerate(
    zip(shown, strips, strict=True)
  ):
    picture.paste(strip, (LABEL, i * height), strip)
    middle = i * height + height // 2
    draw.text((12, middle - 4), label, INK, fonts[0], anchor='ls')
    draw.text((12, middle + 4), size, INK, fonts[1], anchor='lt')
  picture.save(options.out, optimize=True)


if __name__ == '__main__':
  main()
