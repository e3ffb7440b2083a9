"""The names of the quantizers, and what each can serve.

A quantizer with options is its own function; these are the choices of one that
a name can express.
"""

from collections.abc import Callable
from typing import NamedTuple

from qgan_jax.quantizers.base import Quantizer
from qgan_jax.quantizers.uniform import grid, power_of_two_scale, uniform


class _Entry(NamedTuple):
  make: Callable[[int | None], Quantizer]
  roles: str  # Of 'w'eights, 'a'ctivations and 'g'radients.


_ENTRIES = {
  'uniform': _Entry(lambda axis: uniform(axis=axis), 'wag'),
  'affine': _Entry(lambda axis: uniform(symmetric=False, axis=axis), 'wag'),
  'power_of_two_scale': _Entry(
    lambda axis: power_of_two_scale(axis=axis), 'wag'
  ),
  # A grid has no range to fit activations into.
  'grid': _Entry(lambda axis: grid(), 'w'),
}


def _serving(role: str) -> tuple[str, ...]:
  return tuple(name for name, entry in _ENTRIES.items() if role in entry.roles)


NAMES = tuple(_ENTRIES)
WEIGHTS, ACTIVATIONS, GRADIENTS = map(_serving, 'wag')


def by_name(name: str, *, axis: int | None = None) -> Quantizer:
  """The quantizer of a name.

  Args:
    name: one of `NAMES`; `WEIGHTS`, `ACTIVATIONS` and `GRADIENTS` are those
      that serve each.
    axis: the axis with parameters of its own for each index (per channel);
      None for one set (per tensor). Ignored by a quantizer that has no choice.

  Raises:
    ValueError: for a name that is none of them.
  """
  if name not in _ENTRIES:
    raise ValueError(f'quantizer={name!r}: one of {", ".join(NAMES)}')
  return _ENTRIES[name].make(axis)
