"""Which tensor is quantized how: applied from outside, to any Linen module."""

from qgan_jax.precision.network import (
  Bits,
  is_weight,
  make_precision,
  Precision,
  QuantizerSpec,
)

__all__ = ['Bits', 'Precision', 'QuantizerSpec', 'is_weight', 'make_precision']
