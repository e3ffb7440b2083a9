"""Quantizers: pure functions of arrays, by the names of their papers."""

from qgan_jax.quantizers.base import Quantizer
from qgan_jax.quantizers.ranges import tensor_range
from qgan_jax.quantizers.registry import (
  ACTIVATIONS,
  by_name,
  GRADIENTS,
  NAMES,
  WEIGHTS,
)
from qgan_jax.quantizers.uniform import (
  fake_quantize,
  grid,
  power_of_two_scale,
  uniform,
)

__all__ = [
  'ACTIVATIONS',
  'GRADIENTS',
  'NAMES',
  'Quantizer',
  'WEIGHTS',
  'by_name',
  'fake_quantize',
  'grid',
  'power_of_two_scale',
  'tensor_range',
  'uniform',
]
