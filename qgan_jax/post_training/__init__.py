"""Quantization of trained networks, without training them again.

Functions of any Linen module, its variables and calibration inputs: nothing
here knows of GANs, configs or training.
"""

from qgan_jax.post_training.allocation import (
  allocate_bits,
  format_allocation,
  rules_of,
  Sensitivity,
  sensitivity,
)
from qgan_jax.post_training.calibration import (
  activation_ranges,
  RANGE_METHODS,
)
from qgan_jax.post_training.network import Quantized
from qgan_jax.post_training.rounding import adaround
from qgan_jax.post_training.weights import (
  correct_biases,
  fit_weights,
  reestimate_batch_stats,
)

__all__ = [
  'Quantized',
  'RANGE_METHODS',
  'Sensitivity',
  'activation_ranges',
  'adaround',
  'allocate_bits',
  'correct_biases',
  'fit_weights',
  'format_allocation',
  'reestimate_batch_stats',
  'rules_of',
  'sensitivity',
]
