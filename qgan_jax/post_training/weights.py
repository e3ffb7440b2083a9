"""Scales of trained weights, and a correction of biases for their errors."""

from collections.abc import Mapping
import functools
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.post_training.watch import batches, call_order, watch
from qgan_jax.precision import FLOAT_BITS, Quantized, QuantizerSpec, width
from qgan_jax.quantizers.ranges import reduction_axes

Array = jax.Array
PyTree = Any
Params = dict[str, Array]
# Of the largest magnitude: fine where many bits end, coarse down to what 1 bit
# needs.
_RATIOS = np.concatenate(
  [np.linspace(0.02, 0.3, 29), np.linspace(0.31, 0.9, 60),
   np.linspace(0.902, 1, 50)]
)  # fmt: skip


def fit_weights(network: Quantized) -> Quantized:
  """Sets learned scales of the weights to those of least squared error.

  Each scale (one per channel, or one per tensor) is searched for by itself.
  This concerns quantizers with a learned scale (LSQ, SEQ, …), whose scales
  training would otherwise learn. All other quantizers compute their parameters
  from the tensor and are not changed.

  Args:
    network: with its weights in float.

  Returns:
    The network with the scales in `learned`.
  """
  learned = dict(network.learned)
  learned['weights'] = dict(learned.get('weights', {}))
  params = network.variables['params']
  masks = network.precision.masks(params, network.bits)
  for keys, w in traverse_util.flatten_dict(params).items():
    path = network.precision.weight_path(keys, w)
    spec = None if path is None else network.precision.spec('weights', path)
    if path is None or spec is None:
      continue
    bits = jnp.float32(width(network.bits.weights, path))
    if 'scale' in spec.quantizer.learned and bits < FLOAT_BITS:
      w = w * masks[path] if masks else w
      learned['weights'][path] = _least_error(spec, w, bits)
  return network.replace(learned=learned)


@functools.partial(jax.jit, static_argnums=0)
def _least_error(spec: QuantizerSpec, w: Array, bits: Array) -> Params:
  """What a quantizer learns of a weight, with the scale of least error."""
  quantizer = spec.quantizer
  params = quantizer.fit(w, bits)
  axes, keep = reduction_axes(w, spec.axis), spec.axis is not None
  largest = jnp.max(jnp.abs(w), axes, keepdims=keep)
  # The scale at which the largest value has the last code.
  unit = {**params, 'scale': jnp.ones_like(params['scale'])}
  top = quantizer.decode(
    quantizer.encode(jnp.full_like(w, 1e6), unit, bits), unit, bits
  )
  full = jnp.maximum(largest / jnp.max(top), jnp.finfo(jnp.float32).tiny)

  def error(ratio: Array) -> Array:
    trial = {**params, 'scale': ratio * full}
    x = quantizer.apply(w, trial, bits)
    return jnp.sum(jnp.square(x - w), axes, keepdims=keep)

  ratios = jnp.float32(_RATIOS)
  errors = jax.lax.map(error, ratios)  # One after another, to save memory.
  fitted = {**params, 'scale': full * ratios[jnp.argmin(errors, 0)]}
  return {name: fitted[name] for name in quantizer.learned}


def correct_biases(
  network: Quantized, *args: Any, batch_size: int = 64
) -> Quantized:
  """Corrects biases for the change of each channel's mean by quantized weights.

  Nagel et al., https://arxiv.org/abs/1906.04721, section 4.2, measured on
  inputs: layers are corrected one after another, each with the corrections of
  all earlier ones in place. Layers without a bias are not changed.

  Args:
    network: with the final scales of its weights.
    *args: calibration inputs [N, …].
    batch_size: number of inputs in one call of the network.
  """
  float_network = network.in_float()
  run = network.with_float_activations()
  parts = batches(args, batch_size)
  original = network.variables['params']
  unquantized = float_network.weights(original)  # Still pruned.
  corrected = traverse_util.flatten_dict(original, sep='/')
  biases = {
    path: name
    for path in call_order(run, parts[0])
    if (name := f'{path}/bias' if path else 'bias') in corrected
  }

  def shift(path: str, wanted: Array, found: Array) -> Array:
    # Over the batch and the pixels: a bias of attention has two axes of its
    # own, one of `ConvLocal` three.
    rank = corrected[biases[path]].ndim
    return jnp.mean(wanted - found, tuple(range(found.ndim - rank)))

  @jax.jit
  def means(network_params, float_params, args):
    found = watch(lambda: run.run(network_params, *args))
    wanted = watch(lambda: float_network.run(float_params, *args))
    return {
      path: sum(
        shift(path, y, x)
        for (_, y), (_, x) in zip(wanted[path], found[path], strict=True)
      )
      / len(found[path])
      for path in biases
    }

  for path, name in biases.items():
    now = with_values(original, corrected)
    weights = run.weights(now)
    shifts = [means(weights, unquantized, part)[path] for part in parts]
    corrected[name] = corrected[name] + jnp.mean(jnp.stack(shifts), 0)
  params = with_values(original, corrected)
  return network.replace(variables={**network.variables, 'params': params})


def with_values(params: PyTree, values: Mapping[str, Array]) -> PyTree:
  """A tree of parameters with other values.

  Args:
    params: the tree. A name in it may have slashes itself, such as that of
      `nn.WeightNorm`'s scale, 'Dense_0/kernel/scale'.
    values: of every parameter, by its path.
  """
  paths = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict(
    {path: values['/'.join(path)] for path in paths}
  )
