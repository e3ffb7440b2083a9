"""Drawing images with any runtime, and the latents that are used for it."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qgan_jax.artifacts.grids import to_uint8
from qgan_jax.errors import did_you_mean, UserError

BATCH = 64  # Images for which latents are drawn together.
_PIXELS = BATCH * 64 * 64  # That a network makes at a time.
FITS = ('crop', 'pad', 'stretch')
METADATA_KEY = 'qgan'  # Of an ONNX or a LiteRT file's own metadata.


class Fitting(NamedTuple):
  """How pictures become the images that a network is called with.

  Attributes:
    fit: how they get the right proportions: 'crop', 'pad' or 'stretch'.
    pixel_art: whether they are scaled by whole numbers without smoothing.
    white: the value that becomes 255, of pictures with 16 bits.
  """

  fit: str = 'crop'
  pixel_art: bool = False
  white: int = 65535


@dataclasses.dataclass(frozen=True)
class Drawer:
  """A generator that is ready to draw, in any runtime.

  Attributes:
    draw: (latents float32 [B, latent_dim], labels int32 [B] or None) → images
      float32 [B, H, W, C] in [−1, 1]. If `input_shape` is set, it takes images
      of the same range in place of latents.
    latent_dim: length of a latent; 0 if it takes images.
    num_classes: 0 for an unconditional generator.
    runtime: name of the runtime.
    description: quantizers and bits, in words.
    class_names: of the labels; empty if they are not known.
    input_shape: of the images that it takes, (H, W, C); None if it draws from
      latents.
    fitting: how pictures were made into such images in training.
  """

  draw: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
  latent_dim: int
  num_classes: int
  runtime: str
  description: str
  class_names: tuple[str, ...] = ()
  input_shape: tuple[int, ...] | None = None
  fitting: Fitting = Fitting()


def class_names_of(metadata: Any, num_classes: int) -> tuple[str, ...]:
  """The class names in a file's metadata, which is not trusted.

  Args:
    metadata: of the file.
    num_classes: of its generator.

  Returns:
    One name for each class if all names are different; otherwise none.
  """
  names = metadata.get('class_names') if isinstance(metadata, dict) else None
  if not isinstance(names, list) or len(names) != num_classes:
    return ()
  # Each becomes a text, so that a set can hold it.
  different = {str(name) for name in names}
  are_names = all(isinstance(name, str) for name in names)
  return tuple(names) if are_names and len(different) == num_classes else ()


def fitting_of(metadata: Any) -> Fitting:
  """How pictures were fitted, from a file's metadata, which is not trusted."""
  said = metadata.get('input_images') if isinstance(metadata, dict) else None
  if not isinstance(said, dict) or said.get('fit') not in FITS:
    return Fitting()
  found = Fitting(said['fit'], said.get('pixel_art') is True)
  white: Any = said.get('white')
  if type(white) is int and 0 < white <= found.white:
    found = found._replace(white=white)
  return found


def image_shape_of(shapes: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
  """The shape of the images that a network takes, or gives.

  Args:
    shapes: of one example of each of its inputs, or outputs.

  Returns:
    (H, W, C); None if they are anything but one image.
  """
  if len(shapes) != 1 or len(shapes[0]) != 3:
    return None
  return tuple(shapes[0])


def checked_inputs(
  inputs: Sequence[Any],
  expected: Sequence[tuple[Sequence[int], str]],
  num_classes: int,
) -> list[np.ndarray]:
  """The inputs of a network as arrays of its own types.

  Args:
    inputs: what it is to be called with, [N, …] each, N > 0.
    expected: (shape of one example, dtype) of each.
    num_classes: of its labels; 0 if that is not known.

  Raises:
    ValueError: their number or shapes are others, or labels are out of range.
  """
  found = [np.asarray(x) for x in inputs]
  shapes = ', '.join(str(list(x.shape)) for x in found)
  needed = ', '.join(str(['N', *s]).replace("'", '') for s, _ in expected)
  fits = len(found) == len(expected) and all(
    x.ndim and len(x) == len(found[0]) > 0 and x.shape[1:] == tuple(shape)
    for x, (shape, _) in zip(found, expected, strict=True)
  )
  if not fits:
    raise ValueError(f'inputs of shape {shapes}: {needed} is needed')
  for x, (shape, dtype) in zip(found, expected, strict=True):
    is_label = not shape and np.issubdtype(dtype, np.integer)
    if (
      is_label and num_classes and not (x.min() >= 0 and x.max() < num_classes)
    ):
      raise ValueError(
        f'labels from {x.min()} to {x.max()}: of {num_classes} classes, '
        'counted from 0'
      )
  return [x.astype(d) for x, (_, d) in zip(found, expected, strict=True)]


def is_image(shapes: Sequence[Sequence[int]]) -> bool:
  """Whether a network gives one image, with as many channels as pictures have.

  Args:
    shapes: of all that it gives for one example.
  """
  shape = image_shape_of(shapes)
  return shape is not None and shape[2] in (1, 3, 4)


def label_of(drawer: Drawer, text: str) -> int:
  """The label for a class's name or, if there is no such name, its number.

  Raises:
    UserError: there is no such class.
  """
  names, classes = drawer.class_names, drawer.num_classes
  if text in names:
    return names.index(text)
  if text.isdecimal() and len(text) < 10 and int(text) < classes:
    return int(text)
  if not classes:
    raise UserError(f'--label={text}: this generator has no labels; leave it')
  hint = did_you_mean(text, names)
  known = f', called {", ".join(names)}' if names else ''
  raise UserError(
    f'--label={text}: this generator has the labels 0 to {classes - 1}{known}'
    + (hint and f'; {hint}')
  )


def latents(seed: int, batch: int, latent_dim: int) -> np.ndarray:
  """The latents of a batch of `BATCH` images, standard normal.

  Args:
    seed: in [0, 2³²).
    batch: index of the batch, from 0.
    latent_dim: length of a latent.

  Returns:
    float32 [BATCH, latent_dim], the same with every runtime and format.
  """
  # A counter-based generator: no batch needs those before it.
  bits = np.random.Philox(key=[seed, batch])
  return np.random.Generator(bits).standard_normal(
    (BATCH, latent_dim), np.float32
  )


def part_of(shape: Sequence[int]) -> int:
  """How many images of a batch are drawn at once, to limit memory.

  All `BATCH` up to 64×64 pixels, and 4 of 256×256. `BATCH` is a multiple of it,
  so one compiled program is enough.

  Args:
    shape: of an image, [H, W, C].

  Returns:
    A power of two up to `BATCH`.
  """
  fit = min(BATCH, _PIXELS // max(1, math.prod(shape[:-1])))
  return 1 << max(1, fit).bit_length() - 1


def batches(
  drawer: Drawer,
  *,
  num: int,
  seed: int,
  label: int | np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
  """Draws images in batches of `BATCH`.

  Args:
    drawer: what to draw with.
    num: number of images.
    seed: of the latents; image i depends on the seed and on i alone.
    label: the class of all images, or that of each, [num]; None uses the
      classes in turn.

  Yields:
    (images uint8 [B, H, W, C], labels int32 [B] or None).
  """
  for start in range(0, num, BATCH):
    # A whole batch, also where fewer are wanted: a dynamic range sees it all.
    z = latents(seed, start // BATCH, drawer.latent_dim)
    labels = None
    if drawer.num_classes:
      classes = np.arange(drawer.num_classes) if label is None else label
      numbers = start + np.arange(BATCH)
      labels = np.take(np.atleast_1d(classes), numbers, mode='wrap').astype('i')
    images = to_uint8(drawer.draw(z, labels))
    size = min(BATCH, num - start)
    yield images[:size], None if labels is None else labels[:size]


def made_of(drawer: Drawer, images: np.ndarray) -> np.ndarray:
  """Translates images with a drawer.

  Args:
    drawer: one that takes images.
    images: uint8 [N, *input_shape], N > 0.

  Returns:
    uint8 [N, H, W, C].
  """
  parts = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
  # What `training.to_float` makes of bytes.
  given = (part.astype(np.float32) / np.float32(127.5) - 1 for part in parts)
  return np.concatenate([to_uint8(drawer.draw(x, None)) for x in given])


def no_images(path: Path, shapes: Sequence[Sequence[int]]) -> UserError:
  """The error for a file whose network gives something else than `is_image`.

  Args:
    path: of the file.
    shapes: of all that it gives for one example.
  """
  found = ' and '.join(str(list(shape)) for shape in shapes)
  return UserError(
    f'{path} gives {found} for each example, and an image has a height, a '
    'width and 1, 3 or 4 channels: call it in Python'
  )


def not_from_latents(path: Path, shapes: Sequence[Sequence[int]]) -> UserError:
  """The error for a file whose network takes neither latents nor one image.

  Args:
    path: of the file.
    shapes: of one example of each of its inputs.
  """
  found = ' and '.join(str(list(shape)) for shape in shapes)
  return UserError(
    f'{path} is called with examples of shape {found}, and images are drawn '
    'from a latent, and a label where the module has an attribute num_classes, '
    'or made of one image: call it in Python'
  )
