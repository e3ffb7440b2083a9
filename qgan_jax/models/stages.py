"""Sides of feature maps from one stage to the next, and what changes them."""

import jax
import jax.numpy as jnp

Array = jax.Array


def stage_sizes(image_size: int) -> tuple[int, ...]:
  """The sides of the feature maps, from the image's down to 3 or 4 pixels.

  Each is half of the one before, rounded up: 28 → 14 → 7 → 4.
  """
  sizes = [image_size]
  while sizes[-1] > 4:
    sizes.append(-(-sizes[-1] // 2))
  return tuple(sizes)


def stage_widths(image_size: int, channels: int) -> tuple[int, ...]:
  """Channels of the stages, from the image's inwards.

  The same in all of them up to 32 pixels; above, twice as many in each as in
  the one before, up to 16 times as many as at the image.
  """
  growth = 0 if image_size <= 32 else 4
  count = len(stage_sizes(image_size))
  return tuple(channels << min(i, growth) for i in range(count))


def upsample(x: Array, size: int) -> Array:
  """Nearest-neighbour upsampling by 2, cut to a side of `size` pixels.

  Args:
    x: [B, H, W, C].
    size: 2H, or 2H − 1.

  Returns:
    [B, size, size, C].
  """
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)[:, :size, :size]


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


def interpolate(x: Array, size: int) -> Array:
  """Bilinear upsampling by 2: between two pixels lies their mean.

  Args:
    x: [B, H, W, C].
    size: 2H, or 2H − 1; the last of 2H pixels repeats the one before.

  Returns:
    [B, size, size, C].
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
