"""Many images as one picture to look at."""

import math
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from qgan_jax.artifacts.files import replacing

PADDING = 2  # Pixels, between the images and around them.


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Pixels in [−1, 1] as bytes: round((x + 1) · 127.5), clipped to [0, 255]."""
  pixels = np.rint((np.asarray(images, np.float32) + 1) * 127.5)
  return np.clip(pixels, 0, 255).astype(np.uint8)


def grid_shape(num: int, height: int, width: int) -> tuple[int, int]:
  """(height, width) in pixels of the grid that `save_grid` makes."""
  columns = math.ceil(math.sqrt(num))
  rows = -(-num // columns)
  return (
    rows * (height + PADDING) + PADDING,
    columns * (width + PADDING) + PADDING,
  )


def save_png(
  file: BinaryIO, image: np.ndarray, description: str | None = None
) -> None:
  """Writes one image, uint8 [H, W, C] of 1 or 3 channels, as PNG."""
  if image.shape[-1] not in (1, 3):
    raise ValueError(
      f'image of shape {image.shape}: 1 or 3 channels have a PNG'
    )
  pixels = image[..., 0] if image.shape[-1] == 1 else image
  text = PngImagePlugin.PngInfo()
  if description is not None:
    text.add_itxt('Description', description)
  Image.fromarray(pixels).save(file, format='PNG', pnginfo=text)


def grid(images: np.ndarray) -> np.ndarray:
  """Lays images out as one, row by row, near-square, black around.

  Args:
    images: uint8 [N, H, W, C], N > 0. There are ceil(√N) columns.

  Returns:
    uint8 [rows · (H + 2) + 2, columns · (W + 2) + 2, C].
  """
  num, height, width, channels = images.shape
  shape = grid_shape(num, height, width)
  canvas = np.zeros((*shape, channels), np.uint8)
  columns = shape[1] // (width + PADDING)
  for i, image in enumerate(images):
    top = PADDING + i // columns * (height + PADDING)
    left = PADDING + i % columns * (width + PADDING)
    canvas[top : top + height, left : left + width] = image
  return canvas


def save_grid(
  path: str | os.PathLike[str],
  images: np.ndarray,
  *,
  description: str | None = None,
) -> None:
  """Writes images as one PNG, laid out by `grid`.

  Args:
    path: of the PNG, which appears whole or not at all.
    images: uint8 [N, H, W, C] of 1 or 3 channels, N > 0.
    description: what the picture shows, kept inside the file.

  Raises:
    UserError: where the file cannot be written.
  """
  canvas = grid(images)
  with replacing(path) as file:
    save_png(file, canvas, description)
