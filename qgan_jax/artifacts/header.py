"""The header of a `.qgan` file: quantizers, bits and inputs, as JSON.

The class of the network is stored by `architecture`. A header is not trusted:
anything that `record_of` cannot have written raises a ValueError, a TypeError
or a LookupError.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from qgan_jax.artifacts.described import MAX_SIZE
from qgan_jax.precision import Bits, Input, Precision, Quantized, QuantizerSpec
from qgan_jax.precision.activations import RANGES

DRAWN_ROLES = ('weights', 'activations')
_MAX_INPUTS = 16
_DTYPES = ('float32', 'float16', 'bfloat16', 'int32', 'int16', 'int8', 'uint32',
           'uint16', 'uint8', 'bool', 'complex64')  # fmt: skip


def record_of(network: Quantized) -> dict[str, Any]:
  """The header's record of how a network is quantized and called."""
  return {
    'inputs': [[list(x.shape), x.dtype] for x in network.inputs or ()],
    'precision': dataclasses.asdict(_drawn(network.precision)),
    'bits': {
      role: jax.tree.map(float, getattr(network.bits, role))
      for role in DRAWN_ROLES
    },
  }


def _drawn(precision: Precision) -> Precision:
  """What of a precision matters to a trained generator."""
  return dataclasses.replace(
    precision,
    gradients=None,
    exceptions=tuple(e for e in precision.exceptions if e[0] in DRAWN_ROLES),
  )


def read_bits(record: Mapping[str, Any]) -> Bits:
  """The bit widths in a header."""
  return Bits(*(_widths(record[role]) for role in DRAWN_ROLES))


def _widths(record: Any) -> Any:
  """Bits as they are in a header: one number, or numbers by layer."""
  if isinstance(record, dict):
    return {layer: _widths(float(n)) for layer, n in record.items()}
  # Of `grid`, they are an exponent.
  return jnp.float32(_within(-1024, 1024, record))


def read_inputs(record: Any) -> tuple[Input, ...]:
  """The inputs of a network in a header."""
  found = []
  for shape, dtype in record:
    sizes = all(type(n) is int and 0 <= n <= MAX_SIZE for n in shape)
    if not sizes or dtype not in _DTYPES:
      raise ValueError(f'an input of {dtype!r}{shape}')
    found.append(Input(tuple(shape), dtype))
  if not 1 <= len(found) <= _MAX_INPUTS:
    raise ValueError(f'{len(found)} inputs')
  return tuple(found)


def read_precision(record: Mapping[str, Any]) -> Precision:
  """The `Precision` of a network in a header."""

  def spec(value: Mapping[str, Any] | None) -> QuantizerSpec | None:
    if value is None:
      return None
    axis = value['axis']
    if isinstance(axis, list):
      axis = tuple(axis)
    own = axis if isinstance(axis, tuple) else (axis,)
    if axis is not None and any(type(i) is not int for i in own):
      raise TypeError(f'axis={axis!r}')
    spec = QuantizerSpec(**{**value, 'axis': axis})
    if spec.ranges not in (None, *RANGES):
      raise ValueError(f'ranges={spec.ranges!r}')
    spec.quantizer  # noqa: B018  Raises for an unknown name.
    return spec

  layers = record.get('input_layers')  # Files before version 4 lack it.
  if layers is not None and not all(isinstance(path, str) for path in layers):
    raise TypeError(f'input_layers={layers!r}')
  exceptions = []
  for role, path, value in record.get('exceptions', ()):
    if role not in DRAWN_ROLES or not isinstance(path, str):
      raise ValueError(f'an exception of {role!r}, {path!r}')
    exceptions.append((role, path, spec(value)))
  return Precision(
    weights=spec(record['weights']),
    activations=spec(record['activations']),
    momentum=_within(0, 1, record['momentum']),
    input_bits=int(_within(0, 1024, record['input_bits'])),
    exceptions=tuple(exceptions),
    input_layers=None if layers is None else tuple(layers),
  )


def _within(low: float, high: float, value: Any) -> float:
  if not low <= value <= high:
    raise ValueError(f'{value} is not within {low} and {high}')
  return value
