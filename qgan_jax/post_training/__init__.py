"""Quantization of trained networks, without training them again.

The functions work on any Linen module, with its variables and calibration
inputs. They do not depend on GANs, configs or training.
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
from qgan_jax.post_training.fitting import fit, METHODS
from qgan_jax.post_training.modules import quantize
from qgan_jax.post_training.rounding import adaround
from qgan_jax.post_training.watch import batch_size_for, batches
from qgan_jax.post_training.weights import correct_biases, fit_weights

__all__ = [
  'METHODS',
  'RANGE_METHODS',
  'Sensitivity',
  'activation_ranges',
  'adaround',
  'allocate_bits',
  'batch_size_for',
  'batches',
  'correct_biases',
  'fit',
  'fit_weights',
  'format_allocation',
  'quantize',
  'rules_of',
  'sensitivity',
]
