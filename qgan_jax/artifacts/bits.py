"""Packs codes of any width from 1 to 16 bits without gaps."""

from collections.abc import Sequence
import math

import numpy as np

MAX_BITS = 16
_PART = 2**16  # Fields that are unpacked at a time, a multiple of eight.


def _check_width(bits: int) -> None:
  if not 1 <= bits <= MAX_BITS:
    raise ValueError(f'fields of {bits} bits: 1 to {MAX_BITS} can be packed')


def packed_size(count: int, bits: int) -> int:
  """Bytes of `count` fields of `bits` bits: ceil(count · bits / 8)."""
  return -(-count * bits // 8)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
  """Packs unsigned codes, little endian: field i starts at bit i · bits.

  Args:
    codes: integers of any shape in [0, 2^bits).
    bits: width of a field, 1 to 16.

  Returns:
    uint8 [ceil(codes.size · bits / 8)], the last byte filled with zeros.

  Raises:
    ValueError: the width is another one, or a code does not fit into it.
  """
  _check_width(bits)
  codes = np.asarray(codes).reshape(-1)
  if codes.size and (codes.min() < 0 or codes.max() >> bits):
    raise ValueError(
      f'codes from {codes.min()} to {codes.max()} do not fit in {bits} bits'
    )
  octets = codes.astype('<u2').view(np.uint8).reshape(-1, 2)
  fields = np.unpackbits(octets, axis=1, bitorder='little')[:, :bits]
  return np.packbits(fields, bitorder='little')


def unpack(packed: np.ndarray, bits: int, shape: Sequence[int]) -> np.ndarray:
  """The inverse of `pack`.

  Args:
    packed: uint8, 1-D, as `pack` returns it.
    bits: width of a field, 1 to 16.
    shape: of the codes.

  Returns:
    The codes, int32 of `shape`.

  Raises:
    ValueError: the number of bytes does not match the shape.
  """
  _check_width(bits)
  count = math.prod(shape)
  if packed.shape != (packed_size(count, bits),):
    raise ValueError(
      f'{packed.size} bytes do not hold {count} fields of {bits} bits'
    )
  codes = np.empty(count, np.int32)
  # A bit takes a byte here, and eight fields a whole number of bytes there.
  for start in range(0, count, _PART):
    part = codes[start : start + _PART]
    first = start * bits // 8
    fields = np.unpackbits(
      packed[first : first + packed_size(part.size, bits)],
      count=part.size * bits,
      bitorder='little',
    )
    octets = np.packbits(
      fields.reshape(part.size, bits), axis=1, bitorder='little'
    )
    octets = np.pad(octets, ((0, 0), (0, 2 - octets.shape[1])))
    part[:] = octets.view('<u2').reshape(-1)
  return codes.reshape(shape)
