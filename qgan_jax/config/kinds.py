"""Kinds of values that a key of a config may hold."""

from collections.abc import Callable
import ctypes
import math
import re
import sys
from typing import Any, NamedTuple

from qgan_jax.precision.spec import allowed_bits, takes_bits


class Kind(NamedTuple):
  """What a key may hold.

  Attributes:
    type: int, float, bool or str; the text of a value is read as this.
    allowed: which values there are, in words.
    accepts: value → whether it is one of them.
    names: the choices, where values are chosen by name.
  """

  type: type
  allowed: str
  accepts: Callable[[Any], bool]
  names: tuple[str, ...] = ()


def _number(allowed: str, within: Callable[[float], bool]) -> Kind:
  """Numbers that networks compute with: they are judged as float32 has them."""

  def accepts(value: Any) -> bool:
    # A bool is an int in Python, and the largest ints are no float.
    if type(value) not in (int, float) or abs(value) > sys.float_info.max:
      return False
    rounded = ctypes.c_float(value).value
    return math.isfinite(rounded) and within(rounded)

  return Kind(float, allowed, accepts)


def whole(least: int, most: int = 2**31 - 1) -> Kind:
  """Whole numbers between two, both included; they are int32 in arrays."""
  return Kind(
    int,
    f'a whole number from {least} to {most}',
    lambda x: type(x) is int and least <= x <= most,
  )


def one_of(*numbers: int) -> Kind:
  """A few whole numbers."""
  return Kind(
    int,
    f'one of {", ".join(map(str, numbers))}',
    lambda x: type(x) is int and x in numbers,
  )


def choice(*names: str) -> Kind:
  """A few names."""
  return Kind(str, f'one of {", ".join(names)}', lambda x: x in names, names)


def text(allowed: str) -> Kind:
  """Any text but an empty one; what it should be is said in words."""
  return Kind(str, allowed, lambda x: type(x) is str and bool(x))


def size_of(value: Any) -> tuple[int, ...]:
  """(height, width) of '48x32', '32' or 32; () of what is no size."""
  if type(value) not in (int, str):
    return ()
  found = re.fullmatch(r'(\d{1,9})(?:x(\d{1,9}))?', str(value), re.ASCII)
  return (int(found[1]), int(found[2] or found[1])) if found else ()


def size(least: int, most: int) -> Kind:
  """A height and a width, each between two numbers, both included."""

  def accepts(value: Any) -> bool:
    found = size_of(value)
    return bool(found) and all(least <= x <= most for x in found)

  return Kind(
    str,
    f'a whole number from {least} to {most}, or two, height x width, as 48x32',
    accepts,
  )


FLAG = Kind(bool, 'true or false', lambda x: type(x) is bool)
POSITIVE = _number('a float32 number above 0', lambda x: x > 0)
NOT_NEGATIVE = _number('a float32 number from 0 up', lambda x: x >= 0)
SHARE = _number('a float32 number above 0 and up to 1', lambda x: 0 < x <= 1)
DECAY = _number(
  'a float32 number of at least 0 and below 1', lambda x: 0 <= x < 1
)
PATH = text('a path')
NAME = Kind(
  str,
  'a name of letters, digits, dots, dashes and underscores',
  lambda x: type(x) is str and bool(re.fullmatch(r'\w[\w.-]*', x, re.ASCII)),
)
PAIRS = Kind(
  str,
  'the names of two folders, A/B',
  lambda x: type(x) is str and bool(re.fullmatch(r'[^/]+/[^/]+', x)),
)
BITS = Kind(
  int,
  'a whole number from 1 to 16, or 32 for float',
  lambda x: type(x) is int and (1 <= x <= 16 or x == 32),
)
# An exponent b of 32 or more leaves a tensor in float: with a step of 2^-32,
# float32 numbers above 2^-9 lie on the grid already.
EXPONENT = _number(
  'the exponent of the grid step 2^b, a number from -32 to 32 (32 is float)',
  lambda x: -32 <= x <= 32,
)
# Bits, or an exponent if the weights' quantizer is `grid`: see `widths`.
BITS_OR_EXPONENT = Kind(
  float,
  f'{BITS.allowed}; with quantizer=grid, a number from -32 to 32',
  lambda x: BITS.accepts(x) or EXPONENT.accepts(x),
)


def widths(quantizer: str) -> Kind:
  """The bits that tensors with a quantizer can have."""
  if quantizer == 'grid':
    return EXPONENT
  return Kind(int, allowed_bits(quantizer), lambda x: takes_bits(quantizer, x))
