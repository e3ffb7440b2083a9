"""The first images of sample grids, as small PNGs inside the page."""

import base64
from collections.abc import Sequence
import io
from typing import Any, NamedTuple

from PIL import Image

from qgan_jax.artifacts.grids import PADDING
from qgan_jax.reports.read import Run

_COLUMNS, _ROWS = 8, 2
_LARGEST = 48  # Pixels of an image's side on the page; stored at twice that.
_MOST = 120  # Strips on a page, some 10 kB each.


class Strip(NamedTuple):
  """Some samples of one run.

  Attributes:
    setting: of the run.
    seed: of the run.
    step: at which they were drawn.
    url: a data URL of a PNG.
    width: on the page, in pixels.
    height: on the page, in pixels.
    alt: what it is, for those who do not see it.
  """

  setting: str
  seed: Any
  step: int
  url: str
  width: int
  height: int
  alt: str


def strips(runs: Sequence[Run], settings: Sequence[str]) -> list[Strip]:
  """A strip for each run that has samples, in the order of the runs.

  The latents of all grids are the same, so that one place in all strips is one
  latent. Shown is the grid nearest to the best checkpoint.
  """
  found: list[Strip] = []
  for run, setting in zip(runs, settings, strict=True):
    if not run.samples or len(found) == _MOST:
      continue
    wanted = (run.scores.get('best') or {}).get('step') or max(run.samples)
    step = min(run.samples, key=lambda s: abs(s - wanted))
    file = io.BytesIO()
    try:
      with Image.open(run.samples[step]) as grid:
        picture = _crop(grid, run.config.get('data.image_size'))
        picture.save(file, format='PNG', optimize=True)
    except Exception:  # A broken file can raise nearly anything.
      continue  # Half-written, or gone.
    seed = run.config.get('seed')
    found.append(
      Strip(
        setting=setting,
        seed=seed,
        step=step,
        url='data:image/png;base64,'
        + base64.b64encode(file.getvalue()).decode(),
        width=picture.width,
        height=picture.height,
        alt=f'Samples of {setting}, seed {seed}, step {step:,}',
      )
    )
  return found


def _crop(grid: Image.Image, image_size: Any) -> Image.Image:
  """The first rows and columns of a grid, small enough for a page."""
  # '48x32', or one number for both.
  sides = [int(side) for side in str(image_size or 0).split('x')]
  if min(sides) > 0:
    width = min(grid.width, _COLUMNS * (sides[-1] + PADDING) + PADDING)
    height = min(grid.height, _ROWS * (sides[0] + PADDING) + PADDING)
    grid = grid.crop((0, 0, width, height))
    scale = 2 * _LARGEST / max(sides)
  else:
    scale = _COLUMNS * 2 * _LARGEST / grid.width
  if scale < 1:
    width, height = (max(1, round(x * scale)) for x in grid.size)
    grid = grid.resize((width, height), Image.Resampling.LANCZOS)
  return grid if grid.mode in ('L', 'RGB') else grid.convert('RGB')
