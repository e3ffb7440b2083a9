"""Quantizers by name, and the roles that each is made for.

A quantizer with options is a function of its own. The names here stand for
certain choices of these options.
"""

from collections.abc import Callable
from typing import NamedTuple

from qgan_jax.quantizers import float_formats as formats
from qgan_jax.quantizers.apot import apot
from qgan_jax.quantizers.base import Axis, Quantizer
from qgan_jax.quantizers.codebook import codebook
from qgan_jax.quantizers.dorefa import (
  dorefa,
  dorefa_activation,
  dorefa_gradient,
)
from qgan_jax.quantizers.ewgs import ewgs
from qgan_jax.quantizers.logarithmic import logarithmic
from qgan_jax.quantizers.lsq import lsq, lsq_plus, seq
from qgan_jax.quantizers.mse import uniform_mse
from qgan_jax.quantizers.mx import mx
from qgan_jax.quantizers.pact import pact
from qgan_jax.quantizers.pixels import pixels
from qgan_jax.quantizers.qgan_em import qgan_em
from qgan_jax.quantizers.stochastic import stochastic
from qgan_jax.quantizers.ternary import ternary
from qgan_jax.quantizers.uniform import grid, power_of_two_scale, uniform
from qgan_jax.quantizers.xnor import xnor


class _Entry(NamedTuple):
  make: Callable[[Axis], Quantizer]
  roles: str  # Of 'w'eights, 'a'ctivations and 'g'radients.


_ENTRIES = {
  'uniform': _Entry(lambda axis: uniform(axis=axis), 'wag'),
  'affine': _Entry(lambda axis: uniform(symmetric=False, axis=axis), 'wag'),
  'power_of_two_scale': _Entry(
    lambda axis: power_of_two_scale(axis=axis), 'wag'
  ),
  # A grid has no range to fit activations into.
  'grid': _Entry(lambda axis: grid(), 'w'),
  'uniform_mse': _Entry(lambda axis: uniform_mse(axis=axis), 'wa'),
  'stochastic': _Entry(lambda axis: stochastic(axis=axis), 'wag'),
  'dorefa': _Entry(lambda axis: dorefa(axis=axis), 'w'),
  'dorefa_activation': _Entry(lambda axis: dorefa_activation(), 'a'),
  'pixels': _Entry(lambda axis: pixels(), 'a'),
  'dorefa_gradient': _Entry(lambda axis: dorefa_gradient(axis=axis), 'g'),
  'pact': _Entry(lambda axis: pact(axis=axis), 'a'),
  'lsq': _Entry(lambda axis: lsq(axis=axis), 'wa'),
  'lsq_plus': _Entry(lambda axis: lsq_plus(axis=axis), 'wa'),
  'seq': _Entry(lambda axis: seq(axis=axis), 'w'),
  'ewgs': _Entry(lambda axis: ewgs(axis=axis), 'wa'),
  # One function, under the names that weights alone and both have.
  'bwn': _Entry(lambda axis: xnor(axis=axis), 'w'),
  'xnor': _Entry(lambda axis: xnor(axis=axis), 'wa'),
  'ternary': _Entry(lambda axis: ternary(axis=axis), 'w'),
  'logarithmic': _Entry(lambda axis: logarithmic(axis=axis), 'wag'),
  'apot': _Entry(lambda axis: apot(axis=axis), 'wa'),
  'codebook': _Entry(lambda axis: codebook(), 'w'),
  'qgan_em': _Entry(lambda axis: qgan_em(axis=axis), 'wa'),
  'fp8_e4m3': _Entry(lambda axis: formats.fp8(formats.E4M3, axis=axis), 'wag'),
  'fp8_e5m2': _Entry(lambda axis: formats.fp8(formats.E5M2, axis=axis), 'wag'),
  'mxfp8_e4m3': _Entry(lambda axis: mx(formats.E4M3, axis=axis), 'wag'),
  'mxfp8_e5m2': _Entry(lambda axis: mx(formats.E5M2, axis=axis), 'wag'),
  'mxfp6_e2m3': _Entry(lambda axis: mx(formats.E2M3, axis=axis), 'wag'),
  'mxfp6_e3m2': _Entry(lambda axis: mx(formats.E3M2, axis=axis), 'wag'),
  'mxfp4': _Entry(lambda axis: mx(formats.E2M1, axis=axis), 'wag'),
  'mxint8': _Entry(lambda axis: mx(formats.INT8, axis=axis), 'wag'),
}


def _serving(role: str) -> tuple[str, ...]:
  return tuple(name for name, entry in _ENTRIES.items() if role in entry.roles)


# The names of all quantizers, as a config has them: `quantizer=lsq`.
NAMES = tuple(_ENTRIES)
# The names of those that can quantize weights, activations and gradients.
WEIGHTS = _serving('w')
ACTIVATIONS = _serving('a')
GRADIENTS = _serving('g')
# The names of those that have one set of parameters for a tensor, or none,
# whatever the axis.
PER_TENSOR = ('grid', 'dorefa_activation', 'pixels', 'codebook')


def by_name(name: str, *, axis: Axis = None) -> Quantizer:
  """The quantizer with this name.

  Args:
    name: one of `NAMES`; `WEIGHTS`, `ACTIVATIONS` and `GRADIENTS` are those for
      each role.
    axis: the axis, or axes, of which each index has its own parameters (per
      channel); None for one set of parameters (per tensor). Ignored by
      quantizers that do not have this choice.

  Raises:
    ValueError: there is no such name.
  """
  if name not in _ENTRIES:
    raise ValueError(f'quantizer={name!r}: one of {", ".join(NAMES)}')
  return _ENTRIES[name].make(axis)
