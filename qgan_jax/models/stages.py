"""Sides of feature maps from one stage to the next, and what changes them."""

import jax
import jax.numpy as jnp

Array = jax.Array


# Height and width in pixels.
Size = tuple[int, ...]


def stage_sizes(image_size: int | Size) -> tuple[Size, ...]:
  """Sizes of the feature maps, from the image's down to 3 or 4 pixels.

  Sides are half of those before, rounded up: 28 → 14 → 7 → 4. Where they
  differ, the longer one decides when to stop: 48×32 → 24×16 → 12×8 → 6×4 → 3×2.

  Args:
    image_size: height and width; one number where they are the same.
  """
  height, width = (
    (image_size,) * 2 if isinstance(image_size, int) else image_size
  )
  sizes = [(height, width)]
  while max(sizes[-1]) > 4:
    height, width = sizes[-1]
    sizes.append((-(-height // 2), -(-width // 2)))
  return tuple(sizes)


def is_small(image_size: int | Size) -> bool:
  """Whether images have at most 32 pixels in their longer side."""
  return max(stage_sizes(image_size)[0]) <= 32


def stage_widths(image_size: int | Size, channels: int) -> tuple[int, ...]:
  """Channels of the stages, from the image's inwards.

  The same in all of them up to 32 pixels; above, twice as many in each as in
  the one before, up to 16 times as many as at the image.
  """
  growth = 0 if is_small(image_size) else 4
  count = len(stage_sizes(image_size))
  return tuple(channels << min(i, growth) for i in range(count))


def upsample(x: Array, size: Size) -> Array:
  """Nearest-neighbour upsampling by 2, cut to `size`.

  Args:
    x: [B, H, W, C].
    size: of the result: 2H or 2H − 1, and 2W or 2W − 1.

  Returns:
    [B, *size, C].
  """
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)[:, : size[0], : size[1]]


def halve(x: Array) -> Array:
  """Means of 2×2 pixels; at an odd end, of those that there are.

  Args:
    x: [B, H, W, C].

  Returns:
    [B, ceil(H/2), ceil(W/2), C].
  """
  for axis in (1, 2):
    if x.shape[axis] % 2:
      size = x.shape[axis]
      last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
      x = jnp.concatenate([x, last], axis)
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def interpolate(x: Array, size: Size) -> Array:
  """Bilinear upsampling by 2: between two pixels lies their mean.

  Args:
    x: [B, H, W, C].
    size: as of `upsample`; the last of 2H pixels repeats the one before.

  Returns:
    [B, *size, C].
  """
  x = upsample(x, size)
  for axis in (1, 2):
    x = (x + _shifted(x, axis, 1)) / 2
  return x


def smooth_halve(x: Array) -> Array:
  """The transposed filter, (1, 2, 1)/4 along each side, at every other pixel.

  Args:
    x: [B, H, W, C]; a pixel beyond an edge is like the one there.

  Returns:
    [B, ceil(H/2), ceil(W/2), C].
  """
  for axis in (1, 2):
    x = (x + _shifted(x, axis, -1)) / 2
  return halve(x)


def _shifted(x: Array, axis: int, by: int) -> Array:
  """Each pixel's neighbour, the next (1) or the one before (−1)."""
  size = x.shape[axis]
  edge = size - 1 if by > 0 else 0
  rest = jax.lax.slice_in_dim(x, max(by, 0), size + min(by, 0), axis=axis)
  last = jax.lax.slice_in_dim(x, edge, edge + 1, axis=axis)
  return jnp.concatenate([rest, last] if by > 0 else [last, rest], axis)
