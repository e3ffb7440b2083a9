"""Which tensors of a network are quantized, and how.

This is applied from outside, to any Linen module.
"""

from qgan_jax.precision.arguments import arguments_for
from qgan_jax.precision.network import is_weight, make_precision, Precision
from qgan_jax.precision.own_input import is_layer
from qgan_jax.precision.quantized import (
  Input,
  inputs_like,
  Quantized,
  quantized_of,
)
from qgan_jax.precision.spec import (
  Bits,
  FLOAT_BITS,
  Learned,
  QuantizerSpec,
  ROLES,
  width,
)

__all__ = [
  'Bits',
  'FLOAT_BITS',
  'Input',
  'Learned',
  'Precision',
  'Quantized',
  'QuantizerSpec',
  'ROLES',
  'arguments_for',
  'inputs_like',
  'is_layer',
  'is_weight',
  'make_precision',
  'quantized_of',
  'width',
]
