"""Which tensor is quantized how: applied from outside, to any Linen module."""

from qgan_jax.precision.network import Bits
from qgan_jax.precision.network import Precision
from qgan_jax.precision.network import is_weight
from qgan_jax.precision.network import make_precision
from qgan_jax.precision.network import QuantizerSpec

__all__ = ['Bits', 'Precision', 'QuantizerSpec', 'is_weight', 'make_precision']
