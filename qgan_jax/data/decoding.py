"""Decodes a picture's file, and turns it upright, however large it is."""

from collections.abc import Iterator
import contextlib
import io
import threading

from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from qgan_jax.data import picture_files

# Pixels of a picture that takes about 200 MB while it is decoded and cropped:
# of larger ones there is one at a time.
_LARGE = 2**24
# Above this, Pillow warns of an attack, and from twice as many on it refuses.
# Pictures up to here are never read at a smaller size, so that their pixels
# stay what they were in every data set of that name.
_HUGE = 89_478_485
_MOST_OF_JPEG = 2**29
_JPEG = b'\xff\xd8\xff'
# Formats whose further frames or pages are pictures of their own, and not
# previews or layers.
_OF_SEVERAL = frozenset({'GIF', 'WEBP', 'PNG', 'TIFF', 'AVIF'})
# Where `upright` says in an image's `info` that there are further ones.
SEVERAL = 'several'

_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def upright(data: bytes) -> Iterator[Image.Image]:
  """Opens a picture, turned as its EXIF data says.

  A JPEG of more than 89 megapixels is returned with sides divided by 2 or 4;
  its decoder does that while it reads. Any thread may call this. While one
  thread has a picture of more than 16 megapixels open, others wait with theirs.
  Of several frames or pages, it is the first.

  Args:
    data: the file's content.

  Raises:
    ValueError: it is of no known format, or has too many pixels to be read.
    OSError: it cannot be decoded.
  """
  with _opened(data) as image:
    is_large = image.width * image.height > _LARGE
    with _one_at_a_time if is_large else contextlib.nullcontext():
      found = ImageOps.exif_transpose(image)
      # The image returned is a copy, which no longer knows.
      found.info[SEVERAL] = _is_first_of_several(image)
      yield found


def _is_first_of_several(image: Image.Image) -> bool:
  try:
    return image.format in _OF_SEVERAL and getattr(image, 'is_animated', False)
  except Exception:  # noqa: BLE001
    return False  # Damaged behind the first one, which has been read.


def _opened(data: bytes) -> Image.Image:
  if data.startswith(_JPEG):
    # By its class, as `Image.open` refuses what is huge before it is reduced.
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    pixels = image.width * image.height
    if pixels > _MOST_OF_JPEG:
      raise ValueError(
        f'{pixels // 10**6} megapixels, of at most {_MOST_OF_JPEG // 10**6}: '
        'make it smaller'
      )
    if pixels > _HUGE:
      factor = 2 if pixels <= 4 * _HUGE else 4
      image.draft(None, (image.width // factor, image.height // factor))
      return image
  try:
    return Image.open(io.BytesIO(data), formats=picture_files.formats())
  except UnidentifiedImageError:
    # Pillow's own sentence names an object in memory.
    raise ValueError('damaged, or of a format that is not read') from None
  except Image.DecompressionBombError:
    raise ValueError(
      f'more than {2 * _HUGE // 10**6} megapixels, which only a JPEG may have: '
      'make it smaller, or save it as JPEG'
    ) from None
