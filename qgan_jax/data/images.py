"""Any picture to a square uint8 array: the one resize of the package."""

import numpy as np
from PIL import Image

# Modes that Pillow reads for pictures without colour; the others become RGB.
_GREY_MODES = frozenset(
  {'1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16L', 'I;16B', 'I;16N'}
)


def to_array(
  image: Image.Image, *, image_size: int, channels: int | None = None
) -> np.ndarray:
  """Crops the centre square and resizes it (bicubic, antialiased).

  Transparency is laid over white, 16 bits are scaled to 8, and an image that
  already has the right size keeps its pixels bit for bit.

  Args:
    image: A picture of any size and of any mode but float.
    image_size: Height and width of the result, in pixels.
    channels: 1 or 3; None keeps grey grey and makes everything else RGB.

  Returns:
    uint8 `[image_size, image_size, C]`.

  Raises:
    ValueError: The picture's values have no defined range in 8 bits.
    OSError: The picture cannot be decoded.
  """
  if channels is None:
    channels = 1 if image.mode in _GREY_MODES else 3
  image = _eight_bit(image)
  if image.mode not in ('L', 'RGB'):
    image = image.convert('RGB')
  if channels == 1 and image.mode == 'RGB':
    image = image.convert('L')
  if image.size != (image_size, image_size):
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cropped first: `resize(box=…)` would also read pixels outside of the box.
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
  pixels = np.asarray(image).reshape(image_size, image_size, -1)
  return with_channels(pixels, channels)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
  """Repeats a grey last axis where `channels` asks for more of them."""
  if pixels.shape[-1] == channels:
    return pixels
  return np.repeat(pixels, channels, axis=-1)


def resize_all(
  images: np.ndarray, *, image_size: int, channels: int | None = None
) -> np.ndarray:
  """Applies `to_array` to uint8 `[N, H, W, C]`, `C` 1 or 3."""
  channels = channels or images.shape[-1]
  if images.shape[1:] == (image_size, image_size, channels):
    return images
  result = np.empty((len(images), image_size, image_size, channels), np.uint8)
  for i, pixels in enumerate(images):
    # Pillow wants a grey image without its channel axis.
    picture = Image.fromarray(
      pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    )
    result[i] = to_array(picture, image_size=image_size, channels=channels)
  return result


def _eight_bit(image: Image.Image) -> Image.Image:
  """Returns the image in 8 bits a channel and without transparency."""
  if image.mode.startswith('I'):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
      raise ValueError(f'32-bit values up to {values.max()}')
    return Image.fromarray(np.round(values / 257).astype(np.uint8))
  if image.mode == 'F':
    raise ValueError('float values of unknown range')
  if image.has_transparency_data:
    grey = image.mode in _GREY_MODES
    layer = image.convert('RGBA')
    white = Image.new('RGBA', layer.size, 'white')
    flat = Image.alpha_composite(white, layer)
    return flat.convert('L' if grey else 'RGB')
  return image
