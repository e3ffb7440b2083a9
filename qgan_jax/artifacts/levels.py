"""Finds the grid of a quantized tensor from its values alone.

Runtimes support one kind of quantization, x̂ = scale · (code − zero point) with
codes of at most 8 bits. Whether a quantizer is of this kind is determined from
its output, so no export needs a list of names: ternary weights, DoReFa's
weights and powers of two are integers times a step, too.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
MAX_LEVELS = 256
# Of a step: what float32 leaves of 255 equal ones, and more than that.
_TOLERANCE = 2e-3
_FEW = 5  # Levels by which steps are chosen first; 0 is often one of them.


class Codes(NamedTuple):
  """A weight as integers, with one step for each index of its last axis.

  Attributes:
    codes: int32, of the weight's shape.
    scales: float32 [channels], of either sign, not 0; weight = codes · scales.
  """

  codes: Array
  scales: Array


class Steps(NamedTuple):
  """A quantizer of activations, x̂ = scale · (code − zero_point) + offset.

  Attributes:
    scale: step from one code to the next, positive.
    zero_point: the code that 0 is rounded to, an integer in [0, 255].
    levels: number of codes, 0 … levels − 1.
    offset: the value of the code `zero_point`, if it is not 0. The bytes of
      images, for example, have no level at 0, which lies between 127 and 128.
  """

  scale: float
  zero_point: int
  levels: int
  offset: float = 0.0

  @property
  def highest(self) -> float:
    """The value of the last code."""
    return self.scale * (self.levels - 1 - self.zero_point) + self.offset

  def rounded(self, x: Array) -> Array:
    """Numbers rounded to the levels, float32."""
    codes = np.rint((x - self.offset) / self.scale)
    highest = self.levels - 1 - self.zero_point
    codes = np.clip(codes, -self.zero_point, highest)
    return (codes * self.scale + self.offset).astype(np.float32)


def pairs_fit(steps: Steps, codes: Codes) -> bool:
  """Whether the sum of any two products of codes fits into 16 bits.

  x86 processors without VNNI multiply unsigned by signed bytes with
  `vpmaddubsw`, which adds neighbouring products and saturates at 16 bits.

  Args:
    steps: of the activations; their codes are 0 to levels − 1.
    codes: of the weight.
  """
  highest = 2 * (steps.levels - 1)
  least, most = (highest * int(f(codes.codes)) for f in (np.min, np.max))
  return least >= -(2**15) and most < 2**15


def integer_codes(weight: Array, limit: int) -> Codes | None:
  """Writes a weight as integers times a step for each output channel.

  Args:
    weight: float32, quantized; its last axis is the output channels.
    limit: of the integers' magnitude.

  Returns:
    The codes of least magnitude; None if the values of some channel are not
    such multiples.
  """
  columns = np.asarray(weight, np.float64).reshape(-1, weight.shape[-1])
  found = [_channel(column, limit) for column in columns.T]
  scales = np.array([1.0 if s is None else s for s in found], np.float32)
  if any(s is None for s in found):
    return None
  codes = np.rint(np.asarray(weight, np.float64) / scales).astype(np.int32)
  return Codes(codes, scales)


def _channel(values: Array, limit: int) -> float | None:
  """The largest step of which all values are multiples."""
  levels = np.unique(np.abs(values))
  highest = levels[-1] if levels.size else 0.0
  if highest == 0:
    return 1.0
  if len(levels) > limit + 1:
    return None
  steps = highest / np.arange(1, limit + 1)
  # Hardly any step fits a few levels and not all: the table of all levels and
  # all steps, which may take gigabytes, is never made.
  for some in (levels[:_FEW], levels):
    position = some[:, None] / steps
    off = np.abs(position - np.rint(position)).max(axis=0)
    steps = steps[off < _TOLERANCE]
  return float(steps[0]) if steps.size else None


def steps_of(quantize: Callable[[Array], Array], amplitude: float) -> Steps:
  """The steps of a quantizer of activations, found by calling it.

  Args:
    quantize: float32 [n] → float32 [n].
    amplitude: a number beyond its range.

  Returns:
    The steps.

  Raises:
    ValueError: it is of another kind; the message says of which.
  """
  x = np.linspace(-1, 1, 12, dtype=np.float32)
  if (quantize(x) == x).all():
    raise ValueError('are in float')
  ends = np.array([-amplitude, amplitude], np.float32)
  low, high = map(float, quantize(ends))
  if (quantize(2 * ends) != (low, high)).any():
    raise ValueError('take their range from each batch')
  margin = 0.01 * (high - low)
  x = np.linspace(low - margin, high + margin, 2**16 + 1, dtype=np.float32)
  levels = np.unique(quantize(x)).astype(np.float64)
  count = len(levels)
  if count > MAX_LEVELS:
    raise ValueError('have more than 8 bits')
  if count < 2:
    raise ValueError('have one level only')
  scale = (high - low) / (count - 1)
  if np.abs(levels - np.linspace(low, high, count)).max() > _TOLERANCE * scale:
    raise ValueError('have steps that are not equal')
  offset = float(quantize(np.zeros(1, np.float32))[0])
  zero_point = round((offset - low) / scale)
  if abs(offset) <= _TOLERANCE * scale:
    offset = 0.0
    scale = max(high, -low, key=abs) / (
      count - 1 - zero_point if high >= -low else zero_point
    )
  steps = Steps(float(np.float32(scale)), zero_point, count, offset)
  for shift in (-0.49, 0.49):
    codes = np.arange(count) - zero_point + shift
    near = (codes * scale + offset).astype(np.float32)
    if np.abs(quantize(near) - levels).max() > _TOLERANCE * scale:
      raise ValueError('do not round to the nearest level')
  return steps
