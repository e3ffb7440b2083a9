"""All that quantization after training does to one network, in its order."""

from typing import Any

from qgan_jax.post_training.calibration import activation_ranges
from qgan_jax.post_training.rounding import adaround
from qgan_jax.post_training.watch import batch_size_for, batches
from qgan_jax.post_training.weights import correct_biases, fit_weights
from qgan_jax.precision import Quantized

METHODS = ('nearest', 'mse', 'adaround')


def fit(
  network: Quantized,
  *inputs: Any,
  method: str = 'mse',
  calibration: str = 'mse',
  bias_correction: bool = True,
  rounding_steps: int = 1000,
) -> Quantized:
  """Fits a network's quantizers, biases and statistics to calibration inputs.

  Args:
    network: trained, its weights in float. Quantizers that learn the ranges of
      activations have them in `learned` already.
    *inputs: what it is called with, arrays [N, …], or None.
    method: of the weights. 'nearest' leaves their quantizers as training would
      start them, 'mse' gives them the scales of least squared error, 'adaround'
      these, and rounding by what every layer gives.
    calibration: how static ranges of activations are chosen, of
      `RANGE_METHODS`.
    bias_correction: whether the biases make up for the weights' errors.
    rounding_steps: of 'adaround', a layer.

  Returns:
    The network with scales, biases, BatchNorm's statistics and ranges.
  """
  size = batch_size_for(inputs)
  if method != 'nearest':
    network = fit_weights(network)
  if method == 'adaround':
    network = adaround(network, *inputs, steps=rounding_steps, batch_size=size)
  # Before BatchNorm's statistics are measured, which depend on the biases.
  if bias_correction:
    network = correct_biases(network, *inputs, batch_size=size)
  network = network.with_batch_stats(batches(inputs, size))
  ranges = activation_ranges(
    network, *inputs, method=calibration, batch_size=size
  )
  return network.replace(ranges=ranges)
