"""Computes quantizer parameters of activations from batches."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from qgan_jax import quantizers
from qgan_jax.precision.replicas import Replicas
from qgan_jax.precision.spec import Params, QuantizerSpec

Array = jax.Array
RANGES = ('moving', 'dynamic', 'mse', 'fitted')
# Shares of a range that are tried, 2^(-1/3) apart: at 2 bits, the range of
# least error of what a ReLU leaves of a Gaussian is about a third.
_CLIPS = 2.0 ** (-np.arange(9) / 3)
_FEATURES = 256  # Of each example, that the error of a range is measured on.


def fit_to_batch(
  spec: QuantizerSpec, x: Array, bits: Array, replicas: Replicas
) -> Params:
  """Quantizer parameters fitted to a batch, the same on every replica.

  The quantizer's `fit` is applied to the part of each replica, and the mean of
  the results is used. A learned quantizer uses a part of the batch's range
  instead, if that leaves a smaller squared error. Parameters that belong to
  single rows (`Quantizer.of_rows`) are each replica's own.

  Args:
    spec: the quantizer.
    x: a layer's input, [B, …].
    bits: its bit width.
    replicas: the devices that hold the parts of the batch.
  """
  quantizer = spec.quantizer
  own = quantizer.fit(x, bits)
  if quantizer.of_rows:
    return own
  own = replicas.mean(own)
  if not quantizer.learned or quantizer.from_range is None:
    return own
  low, high = replicas.span(*quantizers.tensor_range(x))
  error, clipped = _least_error(quantizer, x, bits, low, high, replicas)
  better = error < _error(quantizer, x, bits, own, replicas)
  return jax.tree.map(lambda a, b: jnp.where(better, a, b), clipped, own)


def update_range(
  spec: QuantizerSpec,
  x: Array,
  bits: Array,
  average: Array | None,
  *,
  momentum: float,
  update: bool,
  replicas: Replicas,
) -> Array:
  """The range to quantize with, [2].

  Args:
    spec: the quantizer, which needs a range. With 'mse', each batch's range is
      reduced to the part of least squared error at this width.
    x: a layer's input, [B, …].
    bits: its bit width.
    average: the moving average so far; None at the first batch.
    momentum: of the average; 0 uses each batch's own range.
    update: whether this batch is included in the average.
    replicas: the devices that hold the parts of the batch.
  """
  if momentum == 0:
    average = None
  if average is not None and not update:
    return average
  low, high = replicas.span(*quantizers.tensor_range(x))
  batch = jnp.stack([low, high])
  if spec.ranges == 'mse':
    quantizer = spec.quantizer
    _, share = _least_error(quantizer, x, bits, low, high, replicas, _share)
    batch = batch * share['share']
  if average is None:
    return batch
  return momentum * average + (1 - momentum) * batch


def _share(share: Array, params: Params) -> Params:
  del params
  return {'share': share}


def _least_error(quantizer, x, bits, low, high, replicas, keep=None):
  """(least error, what is kept of the share of the range that has it)."""

  def attempt(share: Array) -> tuple[Array, Params]:
    params = quantizer.from_range(share * low, share * high, bits)
    error = _error(quantizer, x, bits, params, replicas)
    return error, keep(share, params) if keep else params

  errors, kept = jax.vmap(attempt)(jnp.float32(_CLIPS))
  best = jnp.argmin(errors)
  return errors[best], jax.tree.map(lambda a: a[best], kept)


def _error(
  quantizer: quantizers.Quantizer,
  x: Array,
  bits: Array,
  params: Params,
  replicas: Replicas,
) -> Array:
  """Mean squared error, on the same few features of every example."""
  x = lax.stop_gradient(x).astype(jnp.float32)
  x = x.reshape(x.shape[0], -1)
  # Neither a multiple nor a divisor of the channels, which come last.
  stride = max(1, x.shape[1] // _FEATURES) | 1
  x = x[:, ::stride]
  rounded = quantizer.decode(quantizer.encode(x, params, bits), params, bits)
  return replicas.mean({'error': jnp.mean(jnp.square(x - rounded))})['error']
