"""Converts any picture to a uint8 array of one size, in one place."""

import math

import numpy as np
from PIL import Image

# Modes that Pillow reads for pictures without colour; the others become RGB.
_GREY_MODES = frozenset(
  {'1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16L', 'I;16B', 'I;16N'}
)
# Height and width in pixels.
Size = tuple[int, ...]


def size_of(image_size: int | Size) -> Size:
  """(height, width) of an image size; one number means a square."""
  return (image_size,) * 2 if isinstance(image_size, int) else image_size


def to_array(
  image: Image.Image,
  *,
  image_size: int | Size,
  channels: int | None = None,
  white: int = 65535,
  fit: str = 'crop',
  pixel_art: bool = False,
) -> np.ndarray:
  """Fits a picture into a size, bicubic and antialiased unless it is pixel art.

  With 4 channels, colours are multiplied by alpha, so that transparent pixels
  are 0, whatever colour a file has there. With 1 or 3, transparent pictures are
  laid over white. 16 bits are scaled to 8. An image that already has the right
  size keeps its pixels bit for bit.

  Args:
    image: A picture of any size and of any mode but float.
    image_size: Height and width of the result, in pixels; one number where they
      are the same.
    channels: 1, 3 or 4 (RGBA). None keeps transparency if there is any, keeps
      grey pictures grey, and makes everything else RGB.
    white: The brightest value if the picture has more than 8 bits.
    fit: `'crop'` takes the largest part of these proportions about the centre,
      `'pad'` scales the whole picture into the middle, `'stretch'` changes its
      proportions.
    pixel_art: Whether to scale by whole numbers without smoothing, and to pad
      the rest. What would have to become smaller and lose pixels is resized
      like others.

  Returns:
    uint8 `[H, W, C]`.

  Raises:
    ValueError: The picture's values have no defined range in 8 bits.
    OSError: The picture cannot be decoded.
  """
  size = size_of(image_size)
  is_grey = image.mode in _GREY_MODES
  image = _eight_bit(image, white)
  if channels is None:
    channels = 4 if image.mode == 'RGBA' else 1 if is_grey else 3
  if channels == 4:
    image = image.convert('RGBA').convert('RGBa')
  else:
    if image.mode == 'RGBA':
      under = Image.new('RGBA', image.size, 'white')
      image = Image.alpha_composite(under, image)
    if is_grey or channels == 1:
      image = image.convert('L')
    elif image.mode != 'RGB':
      image = image.convert('RGB')
  image = _scaled(image, size, fit, pixel_art)
  pixels = np.asarray(image).reshape(image.height, image.width, -1)
  if channels == 4:
    # Bicubic filters overshoot.
    pixels = np.minimum(pixels, pixels[..., 3:])
  return _padded(with_channels(pixels, channels), size)


def _scaled(
  image: Image.Image, size: Size, fit: str, pixel_art: bool
) -> Image.Image:
  """The image as large as `size` in one direction, and no larger in another.

  Pixel art may be smaller in both.
  """
  # As Pillow has sizes.
  wanted = size[::-1]
  if fit == 'crop':
    width = min(image.width, round(image.height * wanted[0] / wanted[1]))
    height = min(image.height, round(image.width * wanted[1] / wanted[0]))
    width, height = max(1, width), max(1, height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    # Cropped first: `resize(box=…)` would also read pixels outside of the box.
    image = image.crop((left, top, left + width, top + height))
  scales = [x / y for x, y in zip(wanted, image.size, strict=True)]
  if fit == 'pad':
    scales = [min(scales)] * 2
  if pixel_art and min(scales) >= 1:
    if fit != 'stretch':  # Its pixels stay square.
      scales = [min(scales)] * 2
    scales = [math.floor(scale) for scale in scales]
  width, height = (
    max(1, round(x * scale))
    for x, scale in zip(image.size, scales, strict=True)
  )
  if image.size == (width, height):
    return image
  if pixel_art:
    pairs = zip(image.size, (width, height), strict=True)
    if all(x % y == 0 or y % x == 0 for x, y in pairs):
      scaled = image.resize((width, height), Image.Resampling.NEAREST)
      back = scaled.resize(image.size, Image.Resampling.NEAREST)
      if image.tobytes() == back.tobytes():  # Nothing is lost.
        return scaled
  return image.resize((width, height), Image.Resampling.BICUBIC)


def _padded(pixels: np.ndarray, size: Size) -> np.ndarray:
  """Adds to `[H, W, C]` around it: the edge, or nothing where C is 4 (RGBA)."""
  height, width, channels = pixels.shape
  if (height, width) == size:
    return pixels
  around = [
    ((s - x) // 2, s - x - (s - x) // 2)
    for x, s in zip((height, width), size, strict=True)
  ]
  return np.pad(
    pixels, [*around, (0, 0)], mode='constant' if channels == 4 else 'edge'
  )


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
  """Repeats grey, and adds an opaque alpha, to get `channels` channels."""
  if pixels.shape[-1] == 1 < channels:
    pixels = np.repeat(pixels, 3, axis=-1)
  if pixels.shape[-1] == 3 < channels:
    opaque = np.full_like(pixels[..., :1], 255)
    pixels = np.concatenate([pixels, opaque], axis=-1)
  return pixels


def resize_all(
  images: np.ndarray, *, image_size: int | Size, channels: int | None = None
) -> np.ndarray:
  """Applies `to_array` to uint8 `[N, H, W, C]`, `C` 1 or 3."""
  channels = channels or images.shape[-1]
  shape = (*size_of(image_size), channels)
  if images.shape[1:] == shape:
    return images
  result = np.empty((len(images), *shape), np.uint8)
  for i, pixels in enumerate(images):
    # Pillow wants a grey image without its channel axis.
    picture = Image.fromarray(
      pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    )
    result[i] = to_array(picture, image_size=image_size, channels=channels)
  return result


def _eight_bit(image: Image.Image, white: int) -> Image.Image:
  """Returns the image in 8 bits a channel, RGBA if some of it is transparent.

  Args:
    image: Of any mode.
    white: The value of 16 bits that becomes 255.
  """
  if image.mode.startswith('I'):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
      raise ValueError(f'values from {values.min()} to {values.max()}')
    scaled = np.round(np.minimum(values / white, 1) * 255).astype(np.uint8)
    alpha = np.uint8(255) * (values != image.info.get('transparency'))
    image = Image.fromarray(scaled)
    image.putalpha(Image.fromarray(alpha))
  if image.mode == 'F':
    raise ValueError('float values of unknown range')
  if image.has_transparency_data:
    layer = image.convert('RGBA')
    # Many files have an alpha channel and no use for it.
    is_opaque = np.asarray(layer)[..., 3].min() == 255
    return layer.convert('RGB') if is_opaque else layer
  return image
