"""Arranges many images in one picture, and writes PNG files."""

import math
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from qgan_jax.artifacts.files import replacing

PADDING = 2  # Pixels, between the images and around them.
# A checkerboard under what is transparent: two greys, and pixels of a square.
_CHECKERS = (102, 153)
_CHECKER = 4


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Pixels in [−1, 1] as bytes: round((x + 1) · 127.5), clipped to [0, 255]."""
  pixels = np.rint((np.asarray(images, np.float32) + 1) * 127.5)
  return np.clip(pixels, 0, 255).astype(np.uint8)


def straight(images: np.ndarray) -> np.ndarray:
  """Divides the colours of RGBA images by alpha, as image files need it.

  Args:
    images: uint8 [..., C]. If C is 4, RGBA with colours multiplied by alpha, as
      networks draw it.

  Returns:
    uint8 [..., C], black where alpha is 0. Images with other C are not changed.
  """
  if images.shape[-1] != 4:
    return images
  alpha = images[..., 3:]
  colours = images[..., :3] * np.uint32(255) + alpha // 2
  colours = np.minimum(colours // np.maximum(alpha, 1), 255).astype(np.uint8)
  return np.concatenate([colours * (alpha > 0), alpha], axis=-1)


def _over_checkers(images: np.ndarray) -> np.ndarray:
  """RGBA as `straight` takes it, laid over a checkerboard: [..., 3]."""
  y, x = np.indices(images.shape[-3:-1]) // _CHECKER
  board = np.array(_CHECKERS, np.uint32)[(x + y) % 2][..., None]
  under = (board * (255 - images[..., 3:]) + 127) // 255
  return np.minimum(images[..., :3] + under, 255).astype(np.uint8)


def grid_shape(num: int, height: int, width: int) -> tuple[int, int]:
  """(height, width) in pixels of the grid that `save_grid` writes."""
  columns = math.ceil(math.sqrt(num))
  rows = -(-num // columns)
  return (
    rows * (height + PADDING) + PADDING,
    columns * (width + PADDING) + PADDING,
  )


def save_png(
  file: BinaryIO, image: np.ndarray, description: str | None = None
) -> None:
  """Writes one image as PNG: uint8 [H, W, C], in the form `straight` takes."""
  if image.shape[-1] not in (1, 3, 4):
    raise ValueError(
      f'image of shape {image.shape}: 1, 3 or 4 channels have a PNG'
    )
  pixels = image[..., 0] if image.shape[-1] == 1 else straight(image)
  text = PngImagePlugin.PngInfo()
  if description is not None:
    text.add_itxt('Description', description)
  Image.fromarray(pixels).save(file, format='PNG', pnginfo=text)


def grid(images: np.ndarray) -> np.ndarray:
  """Arranges images in a near-square grid, row by row, on black.

  Args:
    images: uint8 [N, H, W, C], N > 0. There are ceil(√N) columns. RGBA, with
      colours multiplied by alpha, is laid over a checkerboard.

  Returns:
    uint8 [rows · (H + 2) + 2, columns · (W + 2) + 2, 1 or 3].
  """
  if images.shape[-1] == 4:
    images = _over_checkers(images)
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
  """Writes images as one PNG, arranged by `grid`.

  Args:
    path: of the PNG, which is written completely or not at all.
    images: uint8 [N, H, W, C] of 1, 3 or 4 channels, N > 0.
    description: what the picture shows; stored in the file.

  Raises:
    UserError: the file cannot be written.
  """
  canvas = grid(images)
  with replacing(path) as file:
    save_png(file, canvas, description)
