"""Which tensor is quantized how: applied from outside, to any Linen module."""

from qgan_jax.precision.network import (
  is_layer,
  is_weight,
  make_precision,
  Precision,
)
from qgan_jax.precision.quantized import Input, Quantized
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
  'is_layer',
  'is_weight',
  'make_precision',
  'width',
]
