"""Quantizers: pure functions of arrays, by the names of their papers."""

from qgan_jax.quantizers.base import Quantizer
from qgan_jax.quantizers.uniform import (
  fake_quantize,
  grid,
  power_of_two_scale,
  tensor_range,
  uniform,
)

# The names that `quantizer=…` takes. A quantizer with options is its own
# function; these are the choices of one that a name can express.
NAMES = ('uniform', 'affine', 'power_of_two_scale', 'grid')


def by_name(name: str, *, axis: int | None = None) -> Quantizer:
  """The quantizer of a name.

  Args:
    name: one of `NAMES`; 'affine' is `uniform(symmetric=False)`.
    axis: the axis with a scale for each index; None for one scale.

  Raises:
    ValueError: for a name that is none of them.
  """
  if name == 'uniform':
    return uniform(axis=axis)
  if name == 'affine':
    return uniform(symmetric=False, axis=axis)
  if name == 'power_of_two_scale':
    return power_of_two_scale(axis=axis)
  if name == 'grid':
    return grid()
  raise ValueError(f'quantizer={name!r}: one of {", ".join(NAMES)}')


__all__ = [
  'NAMES',
  'Quantizer',
  'by_name',
  'fake_quantize',
  'grid',
  'power_of_two_scale',
  'tensor_range',
  'uniform',
]
