"""All steps of quantization after training for one network, in order."""

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
    network: trained, with its weights in float. If its activations have learned
      quantizers, their parameters are already in `learned`.
    *inputs: calibration inputs of the network, arrays [N, …] or None.
    method: how weights are rounded. 'nearest' uses the quantizers as training
      would start them. 'mse' sets learned scales to those of least squared
      error. 'adaround' does so too, and then chooses whether each weight is
      rounded up or down by the output of its layer.
    calibration: how fixed ranges of activations are chosen, one of
      `RANGE_METHODS`.
    bias_correction: whether biases are corrected for the errors of the weights.
    rounding_steps: steps of 'adaround' for each layer.

  Returns:
    The network with fitted scales, biases, BatchNorm statistics and ranges.
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
