r"""Draws images from an artifact, without its data set or training code.

  python -m qgan_jax.sample --artifact=runs/mnist/bits=8-s0/generator.qgan \
      --num=64 --out=grid.png

`--artifact` is a .qgan, .onnx, .tflite or .stablehlo file. It is drawn from in
the fastest installed runtime that can read it (OpenVINO, ONNX Runtime, LiteRT,
JAX), unless `--runtime` names one. A seed gives the same latents in all of
them.

The ending of `--out` decides what is written: `….png` is one picture of all
images; `….npz` holds an array `images` (uint8 [N, H, W, C]), and `labels` if
the generator is conditional; `…/` is a folder with a PNG for each image.
Transparent images are RGBA in the last two, and lie over a checkerboard in the
first. Images do not depend on how many are drawn: the first 8 of `--num=64` are
those of `--num=8`.

With `--images`, a generator that was trained to turn pictures into others makes
an image from each picture in a folder, .zip or .tar, and gives it the same
name. Pictures are fitted as in training:

  python -m qgan_jax.sample --artifact=runs/heroes_pairs/…/generator.qgan \
      --images=fronts/ --out=backs/
"""

from collections.abc import Iterator, Sequence
import functools
from pathlib import Path

from absl import flags, logging
import numpy as np

from qgan_jax import errors
from qgan_jax.artifacts.drawer import Fitting
from qgan_jax.artifacts.drawing import RUNTIMES, TIME_LIMIT
from qgan_jax.artifacts.gallery import path_of
from qgan_jax.artifacts.sinks import sample, translate
from qgan_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
  """Draws; see the module's docstring."""
  values = flags.FlagValues()
  errors.define_path(
    'artifact',
    'A .qgan, .onnx, .tflite or .stablehlo file to draw from.',
    values,
  )
  errors.define_count('num', 64, 'Number of images.', values, least=1)
  errors.define_path(
    'out', 'What to write: ….png, ….npz or a folder …/', values
  )
  errors.define_path(
    'images', 'Folder, .zip or .tar of pictures to turn into others.', values
  )
  errors.define_module(values)
  errors.define_seed('Seed of the latents.', values)
  flags.DEFINE_string(
    'label',
    None,
    'Class of all images, by its name or number; by default all classes in '
    'turn.',
    flag_values=values,
  )
  names = sorted({name for names in RUNTIMES.values() for name in names})
  flags.DEFINE_enum(
    'runtime',
    None,
    names,
    'Runtime to draw in; by default the fastest.',
    flag_values=values,
  )
  errors.define_time_limit(TIME_LIMIT, values)
  # Keeps what JAX says of backends that it did not find from the person.
  flags.FLAGS['verbosity'].value = logging.WARNING
  errors.parse_flags(argv, values, __doc__)
  for name in ('artifact', 'out'):
    if not values[name].value:
      raise UserError(f'--{name}=… is missing: see --help for an example')
  errors.import_module(values.module)
  artifact = path_of(values.artifact)
  if values.images:
    for name in ('num', 'label', 'seed'):
      if values[name].present:
        raise UserError(f'--{name} does nothing with --images; leave it out')
    if Path(values.out).resolve().is_relative_to(Path(values.images).resolve()):
      raise UserError(
        f'--out={values.out} lies inside --images={values.images}, whose '
        'pictures are read while images are written: name another folder'
      )
    translate(
      artifact=artifact,
      read=functools.partial(_read, values.images),
      out=values.out,
      runtime=values.runtime,
      seconds=values.time_limit,
    )
    return
  sample(
    artifact=artifact,
    num=values.num,
    out=values.out,
    seed=values.seed,
    label=values.label,
    runtime=values.runtime,
    seconds=values.time_limit,
  )


def _read(
  path: str, shape: tuple[int, ...], fitting: Fitting
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
  """Pictures as images of a shape: see `translate`."""
  # What draws from latents starts without it.
  from qgan_jax.data import images, reading

  height, width, channels = shape
  if channels not in (1, 3, 4):
    raise UserError(
      f'the artifact is called with images of {height}×{width}×{channels}, '
      'which pictures are not fitted to: call it in Python'
    )
  to_array = functools.partial(
    images.to_array,
    image_size=(height, width),
    channels=channels,
    **fitting._asdict(),
  )
  return reading.read(path, to_array)


if __name__ == '__main__':
  errors.run(main)
