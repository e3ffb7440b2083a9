"""How a `.qgan` file stores its header and its tensors, in few bytes.

The file is a safetensors file, so nothing in it is ever executed. Its metadata
is the format's version, and its only tensor contains these bytes:

  SHA-256 of all that follows (32 bytes);
  length of the header (4 bytes, little endian), and the header, deflated: a
    JSON object, with the place of each tensor added;
  the tensors in the order of their names: float32 as they are, codes either
    as they are or Huffman coded, whichever is shorter.

Codes seldom use all levels equally. Huffman codes of whole bytes save 10 % at 8
bits, 20 % and more at 4, and half at 2. No other coding of a file's bytes saves
more than another 1 % (measured: Zstandard 19, deflate 9), and Huffman codes
cannot expand a file to more than eight times its size.
"""

from collections.abc import Mapping
import hashlib
import json
import math
from typing import Any
import zlib

import numpy as np

Tensors = dict[str, np.ndarray]
_MAX_HEADER = 2**20
_DIGEST, _LENGTH = 32, 4
_RAW_DEFLATE = -15


def to_json(value: Mapping[str, Any]) -> str:
  """JSON without spaces; scalars of NumPy and JAX become Python's."""
  return json.dumps(
    value, separators=(',', ':'), default=lambda scalar: scalar.item()
  )


def join(header: Mapping[str, Any], tensors: Tensors) -> np.ndarray:
  """Packs a header and tensors into bytes.

  Args:
    header: a JSON object.
    tensors: float32 of any shape, and uint8 [n].

  Returns:
    uint8 [bytes].

  Raises:
    ValueError: the header is longer than `split` reads.
  """
  index: dict[str, Any] = {}
  parts = []
  for name, x in sorted(tensors.items()):
    content = x.tobytes()
    if x.dtype == np.uint8:
      coded = _huffman(content)
      index[name] = [len(content), min(len(coded), len(content))]
      content = min(content, coded, key=len)
    else:
      index[name] = {'shape': list(x.shape)}
    parts.append(content)
  # Names and numbers repeat: the header deflates to less than half.
  content = to_json({**header, 'tensors': index}).encode()
  if len(content) > _MAX_HEADER:
    raise ValueError(
      f'its header, which holds the metadata, has {len(content)} bytes, and at '
      f'most {_MAX_HEADER} are read'
    )
  text = zlib.compress(content, 9)
  body = b''.join((len(text).to_bytes(_LENGTH, 'little'), text, *parts))
  content = hashlib.sha256(body).digest() + body
  return np.frombuffer(content, np.uint8)


def _huffman(content: bytes) -> bytes:
  coder = zlib.compressobj(
    9, zlib.DEFLATED, _RAW_DEFLATE, strategy=zlib.Z_HUFFMAN_ONLY
  )
  return coder.compress(content) + coder.flush()


def split(content: np.ndarray) -> tuple[dict[str, Any], Tensors]:
  """The inverse of `join`, for bytes that are not trusted.

  Raises:
    ValueError, LookupError, TypeError: `join` cannot have returned these bytes.
    ChecksumError: the bytes were changed after `join` had returned them.
  """
  if content.dtype != np.uint8 or content.ndim != 1:
    raise TypeError(f'its content is {content.dtype}{list(content.shape)}')
  data = content.tobytes()
  start = _DIGEST + _LENGTH
  if len(data) < start:
    raise ValueError(f'{len(data)} bytes are too few')
  if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
    raise ChecksumError
  end = start + int.from_bytes(data[_DIGEST:start], 'little')
  header = json.loads(_inflate(data[start:end], _MAX_HEADER, zlib.MAX_WBITS))
  index = header.pop('tensors')
  tensors: Tensors = {}
  for name in sorted(index):
    place = index[name]
    if isinstance(place, dict):
      shape = tuple(place['shape'])
      if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f'{name} has the shape {shape}')
      size = 4 * math.prod(shape)
      x = np.frombuffer(_part(data, end, size), '<f4').reshape(shape)
    else:
      length, size = place
      stored = _part(data, end, size)
      if length != size:
        # A code of at least one bit for each byte.
        if not 0 <= length <= 8 * size:
          raise ValueError(f'{name}: {length} bytes in {size}')
        stored = _inflate(stored, length, _RAW_DEFLATE)
        if len(stored) != length:
          raise ValueError(f'{name}: {len(stored)} bytes instead of {length}')
      x = np.frombuffer(stored, np.uint8)
    tensors[name] = x
    end += size
  if end != len(data):
    raise ValueError(f'{len(data) - end} bytes too many')
  return header, tensors


class ChecksumError(ValueError):
  """The bytes are not those that were written."""


def _part(data: bytes, start: int, size: Any) -> bytes:
  if type(size) is not int or not 0 <= size <= len(data) - start:
    raise ValueError(f'{size} bytes from {start} of {len(data)}')
  return data[start : start + size]


def _inflate(data: bytes, most: int, window: int) -> bytes:
  """Inflates, to `most` bytes at most."""
  coder = zlib.decompressobj(window)
  try:
    # 0 would be no limit.
    content = coder.decompress(data, max(most, 1))
  except zlib.error as error:
    raise ValueError(str(error)) from None
  if not coder.eof or coder.unused_data:
    raise ValueError(f'{len(data)} deflated bytes do not end where they should')
  return content
