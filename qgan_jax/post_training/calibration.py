"""Ranges of activations from calibration inputs.

The methods are compared by Krishnamoorthi, https://arxiv.org/abs/1806.08342,
section 3.1.2; 'kl' is the one of TensorRT (Migacz, GTC 2017).
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.post_training.watch import batches, call_order, watch
from qgan_jax.precision import Quantized, QuantizerSpec
from qgan_jax.quantizers import tensor_range

Array = jax.Array
# Takes values and a range [2]; returns the values quantized in that range.
Quantize = Callable[[np.ndarray, np.ndarray], np.ndarray]
_SAMPLE = 1 << 19  # Values kept of a layer's inputs, drawn evenly.
_SHRINKS = np.linspace(0.2, 1.0, 81)
_BINS = 2048


def _minmax(x: np.ndarray, full: np.ndarray, quantize: Quantize) -> np.ndarray:
  del x, quantize
  return full


def _percentile(
  x: np.ndarray, full: np.ndarray, quantize: Quantize
) -> np.ndarray:
  del full, quantize
  return np.quantile(x, [1e-4, 1 - 1e-4])


def _mse(x: np.ndarray, full: np.ndarray, quantize: Quantize) -> np.ndarray:
  """The range, shrunk towards zero, of least squared error."""
  errors = [
    np.mean(np.square(x - quantize(x, full * shrink))) for shrink in _SHRINKS
  ]
  return full * _SHRINKS[int(np.argmin(errors))]


def _kl(x: np.ndarray, full: np.ndarray, quantize: Quantize) -> np.ndarray:
  """The range, shrunk towards zero, of least information lost.

  The divergence from the histogram of the values, clipped to the range, to
  that of their quantized selves, each level's share spread evenly over the
  occupied bins that it stands for.
  """
  divergences = []
  for shrink in _SHRINKS:
    low, high = full * shrink
    p, edges = np.histogram(np.clip(x, low, high), _BINS, (low, high))
    levels = quantize((edges[:-1] + edges[1:]) / 2, full * shrink)
    _, level = np.unique(levels, return_inverse=True)
    # Values that are clipped count in P and not in Q.
    inside, _ = np.histogram(x, _BINS, (low, high))
    share = np.bincount(level, weights=inside)
    occupied = np.bincount(level, weights=inside > 0)
    q = np.where(inside > 0, (share / np.maximum(occupied, 1))[level], 0.0)
    p, q = p / p.sum(), q / max(q.sum(), 1)
    seen = p > 0
    divergences.append(
      np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12)))
    )
  return full * _SHRINKS[int(np.argmin(divergences))]


RANGE_METHODS: dict[str, Callable[..., np.ndarray]] = {
  'minmax': _minmax,
  'percentile': _percentile,
  'mse': _mse,
  'kl': _kl,
}


def activation_ranges(
  network: Quantized, *args: Any, method: str = 'mse', batch_size: int = 64
) -> dict[str, Array]:
  """Computes fixed ranges for all layer inputs that are quantized.

  The network runs with quantized weights and float activations, so the ranges
  fit the values that the quantized weights produce.

  Args:
    network: with the final quantizers of its weights.
    *args: calibration inputs [N, …]; None where the module takes None.
    method: 'minmax', from the least to the greatest value; 'percentile', with
      0.01 % of the values cut off at either end; 'mse', the range of least
      squared error; 'kl', the range of least information lost.
    batch_size: number of inputs in one call of the network.

  Returns:
    Ranges [2] by module path, for `Precision.apply`.
  """
  run = network.with_float_activations()
  kept: dict[str, list[np.ndarray]] = {}
  lows: dict[str, list[float]] = {}
  parts = batches(args, batch_size)
  rng = np.random.default_rng(0)
  for part in parts:
    for path, calls in _inputs(run, part).items():
      flat = np.concatenate([np.asarray(x, np.float32).ravel() for x in calls])
      low, high = tensor_range(jnp.asarray(flat))
      lows.setdefault(path, []).extend((float(low), float(high)))
      if flat.size > _SAMPLE // len(parts):
        flat = rng.choice(flat, _SAMPLE // len(parts), replace=False)
      kept.setdefault(path, []).append(flat)

  order = call_order(run, parts[0])
  ranges = {}
  for path, chunks in kept.items():
    spec = network.precision.spec('activations', path)
    if spec is None or spec.quantizer.from_range is None:
      continue
    is_input = network.precision.is_input(path, first=path == order[0])
    bits = jnp.float32(
      network.precision.activation_width(network.bits, path, is_input=is_input)
    )
    # The extremes may have escaped the sample.
    ends = np.array([min(lows[path]), max(lows[path])], np.float32)
    values = np.concatenate(chunks)
    found = RANGE_METHODS[method](
      values,
      ends,
      lambda x, bounds, spec=spec, bits=bits: np.asarray(
        _quantize(spec, jnp.float32(x), jnp.float32(bounds), bits)
      ),
    )
    ranges[path] = jnp.float32(found)
  return ranges


# Compiled once for all networks of the same modules and quantizers: a person
# may try several bit widths.
@jax.jit
def _inputs(
  network: Quantized, args: tuple[Any, ...]
) -> dict[str, list[Array]]:
  """What every layer is given, call by call, by module path."""
  params = network.weights(network.variables['params'])
  seen = watch(lambda: network.run(params, *args))
  return {path: [x for x, _ in calls] for path, calls in seen.items()}


@functools.partial(jax.jit, static_argnums=0)
def _quantize(
  spec: QuantizerSpec, x: Array, bounds: Array, bits: Array
) -> Array:
  quantizer = spec.quantizer
  assert quantizer.from_range is not None
  params = quantizer.from_range(bounds[0], bounds[1], bits)
  return quantizer.apply(x, params, bits)
