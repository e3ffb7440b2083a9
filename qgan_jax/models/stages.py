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
      last = jnp.take(x, jnp.array([-1]), axis)
      x = jnp.concatenate([x, last], axis)
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
