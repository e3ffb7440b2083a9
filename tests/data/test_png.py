import io
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest

from qgan_jax.data import png


def _chunk(kind, content):
  checksum = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + checksum


def _encode(filtered, kinds, *, pieces=1, extra=b''):
  """Writes filtered lines as they are: their pixels are the reader's affair."""
  height, width, channels = filtered.shape
  header = struct.pack(
    '>IIBBBBB', width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0
  )
  lines = np.concatenate([kinds[:, None], filtered.reshape(height, -1)], axis=1)
  data = zlib.compress(lines.astype(np.uint8).tobytes())
  cut = -(-len(data) // pieces)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      _chunk(b'IHDR', header),
      extra,
      *(_chunk(b'IDAT', data[i : i + cut]) for i in range(0, len(data), cut)),
      _chunk(b'IEND', b''),
    ]
  )


@given(
  seed=st.integers(0, 2**32 - 1),
  height=st.integers(1, 8),
  width=st.integers(1, 8),
  channels=st.sampled_from([1, 3]),
  pieces=st.integers(1, 3),
)
def test_all_filters_agree_with_pillow(seed, height, width, channels, pieces):
  rng = np.random.default_rng(seed)
  files = [
    _encode(
      rng.integers(0, 256, (height, width, channels)),
      rng.integers(0, 5, height),
      pieces=pieces,
    )
    for _ in range(6)
  ]
  expected = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
  got = png.decode_all(files)
  assert got.dtype == np.uint8
  assert got.shape == (6, height, width, channels)
  np.testing.assert_array_equal(got.reshape(np.shape(expected)), expected)


def _pillow(array, file_format='PNG', **options):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, file_format, **options)
  return buffer.getvalue()


GREY = np.zeros((4, 4), np.uint8)
PLAIN = _pillow(GREY)


@pytest.mark.parametrize(
  'files',
  [
    [_pillow(GREY, 'BMP')],
    [b''],
    [PLAIN, _pillow(np.zeros((4, 5), np.uint8))],
    [_pillow(np.zeros((4, 4), np.uint16))],
    [_pillow(np.zeros((4, 4, 4), np.uint8))],
    [_pillow(np.zeros((33, 32), np.uint8))],
    [PLAIN, _pillow(GREY, transparency=0)],
    [PLAIN[:28] + b'\1' + PLAIN[29:]],
  ],
  ids=[
    'another format',
    'empty',
    'two shapes',
    '16 bit',
    'alpha',
    'large',
    'transparent',
    'interlaced',
  ],
)
def test_the_rest_is_left_to_pillow(files):
  assert png.decode_all([PLAIN]) is not None
  assert png.decode_all(files) is None


@pytest.mark.parametrize('size', [30, 45, 55])
def test_damage_is_noticed(size):
  with pytest.raises((ValueError, zlib.error)):
    png.decode_all([PLAIN[:size]])
