"""Augmentation of the images that a discriminator sees, real and fake.

All are pure functions of images and of numbers in [0, 1), one row of numbers
for each image. Images are [B, H, W, C] in [−1, 1]; results may lie outside.
With 1 or 2 channels the first is grey, with 3 or 4 the first three are red,
green and blue. A remaining channel is transparency: it moves with the picture
and keeps its values.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qgan_jax.variants.base import Array, Batch, Metrics, Nets

# Of ADA, as in its authors' code: the mean sign of D's logits of real images
# that is aimed at, the images in which the probability goes from 0 to 1, and
# the steps from one change of it to the next.
TARGET = 0.6
IMAGES = 500_000.0
_EVERY = 4


class Augmentation(NamedTuple):
  """A random change of images.

  Attributes:
    numbers: how many random numbers it needs for an image.
    apply: (images, numbers [B, numbers], p) → images. p is the probability of a
      change; only ADA uses it.
  """

  numbers: int
  apply: Callable[[Array, Array, Array | float], Array]


def mirror(nets: Nets, batch: Batch, key: Array) -> Batch:
  """Mirrors each image of the batch, left to right, with probability ½."""
  images = batch['images']
  chosen = nets.draw(jax.random.uniform, key, (1, 1, 1)) < 0.5
  return {**batch, 'images': jnp.where(chosen, images[:, :, ::-1], images)}


def _colors(images: Array) -> int:
  """How many of the channels are colours."""
  return 1 if images.shape[-1] <= 2 else 3


def _diffaugment(images: Array, numbers: Array, p: Array | float) -> Array:
  """Brightness, saturation, contrast, translation and cutout, of every image.

  Zhao et al., https://arxiv.org/abs/2006.10738, with the ranges of the code of
  its authors. What comes in from outside, and what is cut out, is 0.
  """
  del p
  across = numbers[:, :, None, None, None]
  brightness, saturation, contrast = (across[:, i] for i in range(3))
  count = _colors(images)
  x = images[..., :count] + (brightness - 0.5)
  mean = x.mean(-1, keepdims=True)
  x = (x - mean) * (2 * saturation) + mean
  mean = x.mean((1, 2, 3), keepdims=True)
  x = (x - mean) * (contrast + 0.5) + mean
  images = jnp.concatenate([x, images[..., count:]], -1)

  sides = images.shape[1:3]
  most = [int(side / 8 + 0.5) for side in sides]
  starts = [
    _whole(numbers[:, 3 + i], 2 * shift + 1) for i, shift in enumerate(most)
  ]
  padded = jnp.pad(images, ((0, 0), *((s, s) for s in most), (0, 0)))
  images = jax.vmap(
    lambda image, y, x: jax.lax.dynamic_slice(
      image, (y, x, 0), images.shape[1:]
    )
  )(padded, *starts)

  inside = []
  for i, side in enumerate(sides):
    size = int(side / 2 + 0.5)
    # The middle of the square may lie on the border.
    middle = _whole(numbers[:, 5 + i], side + 1 - size % 2)
    first = (middle - size // 2)[:, None]
    at = jnp.arange(side)
    inside.append((at >= first) & (at < first + size))
  cut = inside[0][:, :, None] & inside[1][:, None, :]
  return jnp.where(cut[..., None], 0, images)


def _whole(numbers: Array, count: int) -> Array:
  """Whole numbers from 0 up to, but not, `count`."""
  return jnp.floor(numbers * count).astype(jnp.int32)


def _matrix(rows: list[list[Any]]) -> Array:
  """[B, 3, 3], of entries [B] or plain numbers."""
  entries = jnp.broadcast_arrays(*(entry for row in rows for entry in row))
  return jnp.stack(entries, -1).reshape(-1, 3, 3)


def _scaling(x: Array, y: Array) -> Array:
  return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def _rotation(cos: Array, sin: Array) -> Array:
  return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _translation(x: Array, y: Array) -> Array:
  return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _warp(images: Array, source: Array) -> Array:
  """Images with each pixel taken from another place, by interpolation.

  Args:
    images: of 2 or more pixels on each side; outside they go on as their
      mirror images about the middles of the outer pixels.
    source: [B, 3, 3], (x, y, 1) of a pixel → (x, y, 1) of where it comes from,
      in pixels, 0 being the middle of the image.
  """
  height, width, channels = images.shape[1:]
  y, x = jnp.meshgrid(
    jnp.arange(height) - (height - 1) / 2,
    jnp.arange(width) - (width - 1) / 2,
    indexing='ij',
  )

  def along(row: int, size: int) -> tuple[Array, Array]:
    """(the pixel before the place, the share of the one after it)."""
    a, b, c = (source[:, row, i, None, None] for i in range(3))
    last = size - 1
    # The triangular wave that is `at` in the image, from 0 to `last`.
    at = jnp.abs((a * x + b * y + c + 1.5 * last) % (2 * last) - last)
    before = jnp.clip(jnp.floor(at), 0, last - 1)
    return before.astype(jnp.int32), at - before

  columns, right = along(0, width)
  rows, below = along(1, height)

  def four(image: Array, row: Array, column: Array) -> Array:
    return jax.lax.dynamic_slice(image, (row, column, 0), (2, 2, channels))

  every = jax.vmap(jax.vmap(four, (None, 0, 0)), (None, 0, 0))
  near = jax.vmap(every)(images, rows, columns)  # [B, H, W, 2, 2, C]
  below, right = (jnp.stack([1 - z, z], -1) for z in (below, right))
  return (near * below[..., :, None, None] * right[..., None, :, None]).sum(
    (3, 4)
  )


def _ada(images: Array, numbers: Array, p: Array | float) -> Array:
  """The changes of ADA, each of an image with probability p.

  Karras et al., https://arxiv.org/abs/2006.06676, appendix B: those of the set
  'bgc' of its authors' code, which are pixel blitting, geometry and colour, in
  its order and with its ranges. Geometry is one bilinear interpolation, without
  the paper's filters against aliases, and the image is mirrored without end.
  """
  given = iter(numbers.T)

  def maybe(*values: Array, chance: Array | float = p) -> list[Array]:
    """The values, or zeros."""
    chosen = next(given) < chance
    return [jnp.where(chosen, value, 0) for value in values]

  def choice(count: int) -> Array:
    return jnp.floor(next(given) * count)

  def signed() -> Array:
    return 2 * next(given) - 1

  def normal() -> Array:
    # Uniform numbers are multiples of 2⁻²³ from 0 up: none is infinite.
    return jax.scipy.special.ndtri(next(given) + 2.0**-24)

  height, width = images.shape[1:3]
  (flip,) = maybe(choice(2))
  (quarters,) = maybe(choice(4))
  whole_x, whole_y = maybe(signed(), signed())
  (size,) = maybe(0.2 * normal())
  # Two turns: with probability p at least one.
  half = 1 - jnp.sqrt(1 - jnp.asarray(p))
  (first,) = maybe(jnp.pi * signed(), chance=half)
  (stretch,) = maybe(0.2 * normal())
  (second,) = maybe(jnp.pi * signed(), chance=half)
  part_x, part_y = maybe(normal(), normal())
  # Cosines of quarter turns would not be exact.
  cos = jnp.array([1.0, 0.0, -1.0, 0.0])[quarters.astype(jnp.int32)]
  sin = jnp.array([0.0, 1.0, 0.0, -1.0])[quarters.astype(jnp.int32)]
  # From where a pixel is to where it comes from.
  source = functools.reduce(
    functools.partial(jnp.matmul, precision='highest'),
    [
      _scaling(1 - 2 * flip, jnp.ones_like(flip)),
      _rotation(cos, sin),
      _translation(
        -jnp.round(whole_x * width / 8), -jnp.round(whole_y * height / 8)
      ),
      _scaling(jnp.exp2(-size), jnp.exp2(-size)),
      _rotation(jnp.cos(first), jnp.sin(first)),
      _scaling(jnp.exp2(-stretch), jnp.exp2(stretch)),
      _rotation(jnp.cos(second), jnp.sin(second)),
      _translation(-part_x * width / 8, -part_y * height / 8),
    ],
  )
  images = _warp(images, source)

  (brightness,) = maybe(0.2 * normal())
  (contrast,) = maybe(0.5 * normal())
  (negative,) = maybe(choice(2))
  (hue,) = maybe(jnp.pi * signed())
  (saturation,) = maybe(normal())
  brightness, contrast, negative, hue, saturation = (
    z[:, None, None, None]
    for z in (brightness, contrast, negative, hue, saturation)
  )
  count = _colors(images)
  x = (images[..., :count] + brightness) * jnp.exp2(contrast)
  # A colour is a grey, which is turned into its negative, and what differs from
  # that, which is turned about the axis of greys, and stretched.
  grey = x.mean(-1, keepdims=True)
  other = x - grey
  across = (jnp.roll(other, 1, -1) - jnp.roll(other, -1, -1)) / 3**0.5
  turned = jnp.cos(hue) * other + jnp.sin(hue) * across
  # This sum changes nothing, to the last digit, where nothing is chosen.
  x += (jnp.exp2(saturation) * turned - other) - 2 * negative * grey
  return jnp.concatenate([x, images[..., count:]], -1)


AUGMENTATIONS = {
  'none': Augmentation(0, lambda images, numbers, p: images),
  'diffaugment': Augmentation(7, _diffaugment),
  'ada': Augmentation(28, _ada),
}


# What ADA starts with: the probability of its changes, and the sum of the signs
# of D's logits and the number of steps since that probability last changed.
ADAPTED = {'augment_p': 0.0, 'augment_signs': 0.0, 'augment_steps': 0.0}


def adapt(
  numbers: Mapping[str, Array], metrics: Metrics, images: int
) -> dict[str, Array]:
  """Updates the probability p of ADA's changes after a step.

  Karras et al., 2006.06676, section 3.1, with r_t = E[sign D(real)]. Every four
  steps, p rises if r_t of these steps is above its target, and falls if it is
  below, at a rate that takes it from 0 to 1 in `augment_images` images. It is
  kept between 0, as in the paper, and 1; in the paper it can rise above 1, and
  then takes long to return.

  Args:
    numbers: those of `ADAPTED`, 'augment_target' and 'augment_images'.
    metrics: of the step; 'd_real_sign', the mean of the signs, is used.
    images: how many real images D has seen in the step.

  Returns:
    The numbers of `ADAPTED` for the next step.
  """
  # Whole numbers: the sums are exact, on any number of devices.
  signs = numbers['augment_signs'] + jnp.round(metrics['d_real_sign'] * images)
  steps = numbers['augment_steps'] + 1
  seen = steps * images
  step = jnp.sign(signs - numbers['augment_target'] * seen) * seen
  p = jnp.clip(numbers['augment_p'] + step / numbers['augment_images'], 0, 1)
  due = steps == _EVERY
  return {
    'augment_p': jnp.where(due, p, numbers['augment_p']),
    'augment_signs': jnp.where(due, 0, signs),
    'augment_steps': jnp.where(due, 0, steps),
  }
