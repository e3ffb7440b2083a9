from concurrent import futures
import io
import threading
import time

import numpy as np
from PIL import Image
import pytest

from qgan_jax.data import decoding, images


def photo(size=(240, 160), kind='JPEG', **options):
  """A file of large soft parts with a corner that says which way is up."""
  small = np.random.default_rng(0).integers(60, 200, (4, 6, 3), np.uint8)
  small[0, 0] = 255
  file = io.BytesIO()
  picture = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
  picture.save(file, kind, **options)
  return file.getvalue()


def pixels_of(data):
  with decoding.upright(data) as picture:
    return np.asarray(picture)


@pytest.mark.parametrize(
  ('bound', 'factor'), [(38_400, 1), (38_399, 2), (9600, 2), (9599, 4)]
)
@pytest.mark.parametrize('options', [{}, {'progressive': True}])
def test_a_huge_jpeg_is_reduced_while_it_is_read(
  monkeypatch, bound, factor, options
):
  monkeypatch.setattr(decoding, '_HUGE', bound)
  exif = Image.Exif()
  exif[0x0112] = 6  # Turn by 90 degrees clockwise to see it upright.
  data = photo(quality=95, exif=exif, **options)
  found = pixels_of(data)
  assert found.shape == (240 // factor, 160 // factor, 3)
  whole = np.rot90(np.asarray(Image.open(io.BytesIO(data))), -1)
  small = [
    images.to_array(Image.fromarray(x), image_size=(24, 16)).astype(int)
    for x in (found, whole)
  ]
  assert np.abs(small[0] - small[1]).max() <= (0 if factor == 1 else 4)


def test_a_jpeg_beyond_what_pillow_opens(monkeypatch):
  monkeypatch.setattr(decoding, '_HUGE', 10_000)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10_000)
  with pytest.raises(Image.DecompressionBombError):
    Image.open(io.BytesIO(photo()))
  assert pixels_of(photo()).shape == (80, 120, 3)


@pytest.mark.parametrize(
  ('kind', 'says'),
  [('PNG', 'more than 178 megapixels.*as JPEG'), ('JPEG', '0 megapixels, of')],
)
def test_what_is_too_large_is_refused_in_a_sentence(monkeypatch, kind, says):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10_000)
  monkeypatch.setattr(decoding, '_MOST_OF_JPEG', 38_399)
  with pytest.raises(ValueError, match=says):
    pixels_of(photo(kind=kind))


@pytest.mark.parametrize(('bound', 'expected'), [(38_400, 4), (38_399, 1)])
def test_large_pictures_are_decoded_one_at_a_time(monkeypatch, bound, expected):
  monkeypatch.setattr(decoding, '_LARGE', bound)
  data = photo()
  lock, inside, most = threading.Lock(), set(), []
  together = threading.Barrier(expected)

  def look(number):
    with decoding.upright(data):
      with lock:
        inside.add(number)
        most.append(len(inside))
      together.wait(10)  # Seconds: until as many are inside as may be.
      time.sleep(0.01)
      with lock:
        inside.remove(number)

  with futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(look, range(4)))
  assert max(most) == expected
