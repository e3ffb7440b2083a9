"""Measures the error of each quantizer on its tensor.

For each quantized tensor:

  sqnr_db    signal over quantization noise, 10 log10(Σx² / Σ(x − x̂)²);
  clipped    share of the values whose gradient the quantizer stops: those
             outside of its range;
  used       share of the 2ⁿ levels of n bits that have a value on them;
  dead       number of levels without a value;
  entropy    of the levels' occupancy, in bits: at most n.

All levels of a tensor are counted together, whatever scales it has. `used` and
`dead` are left out for `grid`, which has as many levels as the tensor needs.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision.network import is_weight, Precision, Ranges
from qgan_jax.precision.spec import (
  Bits,
  FLOAT_BITS,
  Learned,
  Params,
  QuantizerSpec,
  width,
)

Array = jax.Array
PyTree = Any
# What was observed of each tensor, by role, and then by layer.
Tensors = dict[str, dict[str, Any]]


def observe(
  precision: Precision,
  module: nn.Module,
  variables: Mapping[str, PyTree],
  ranges: Ranges,
  bits: Bits,
  learned: Learned,
  *args: Any,
) -> Tensors:
  """Quantizes a network's weights and the activations of one batch.

  A pure function, for `jax.jit`.

  Args:
    precision: of the network.
    module: the network.
    variables: its variables in float.
    ranges: of its activations.
    bits: its bit widths.
    learned: parameters of its learned quantizers.
    *args: what the module is called with.

  Returns:
    By role and layer, the codes and sums that `summarize` takes.
  """
  params = variables['params']
  masks = precision.masks(params, bits)
  found: Tensors = {'weights': {}, 'activations': {}}
  for keys, w in traverse_util.flatten_dict(params).items():
    path = precision.weight_path(keys, w)
    spec = None if path is None else precision.spec('weights', path)
    if path is None or spec is None:
      continue
    w = w * masks[path] if masks else w
    n = width(bits.weights, path)
    fitted = precision.weight_params(path, w, n, learned)
    found['weights'][path] = _observe(spec, w, fitted, n)

  def seen(path: str, x: Array, params: Params, n: Array) -> None:
    spec = precision.spec('activations', path)
    if spec is not None:
      found['activations'][path] = _observe(spec, x, params, n)

  weights = precision.quantize_weights(params, bits, learned=learned)
  precision.apply(
    module,
    {**variables, 'params': weights},
    ranges,
    bits,
    *args,
    learned=learned,
    observe=seen,
  )
  return found


def _observe(
  spec: QuantizerSpec, x: Array, params: Params, bits: Array
) -> dict[str, Array]:
  quantizer = spec.quantizer
  y, pull_back = jax.vjp(lambda x: quantizer.apply(x, params, bits), x)
  (slope,) = pull_back(jnp.ones_like(y))
  x, y = x.astype(jnp.float32), y.astype(jnp.float32)
  codes = quantizer.encode(x, params, bits)
  n = jnp.float32(quantizer.fixed_bits or bits)
  return {
    'bits': n,
    'levels': jnp.inf if spec.name == 'grid' else jnp.exp2(n),
    'signal': jnp.sum(jnp.square(x)),
    'noise': jnp.sum(jnp.square(x - y)),
    'clipped': jnp.mean(slope == 0),
    'codes': codes,
  }


def summarize(tensors: Tensors) -> dict[str, dict[str, float]]:
  """Numbers to log, from the results of `observe`, on the host.

  Returns:
    {'LAYER/ROLE': {'sqnr_db': …, 'clipped': …, 'used': …, 'dead': …, 'entropy':
    …, 'bits': …}}; tensors in float are left out.
  """
  summaries = {}
  for role, layers in tensors.items():
    for layer, seen in layers.items():
      bits = float(seen['bits'])
      if bits >= FLOAT_BITS:
        continue
      _, counts = np.unique(np.asarray(seen['codes']), return_counts=True)
      share = counts / counts.sum()
      levels = float(seen['levels'])
      # Nothing to divide by, where all is 0 or exact.
      noise, signal = (max(float(seen[k]), 1e-38) for k in ('noise', 'signal'))
      summaries[f'{layer}/{role}'] = {
        'bits': bits,
        'sqnr_db': float(10 * np.log10(signal / noise)),
        'clipped': float(seen['clipped']),
        'entropy': float(-np.sum(share * np.log2(share))),
      }
      if np.isfinite(levels):
        summaries[f'{layer}/{role}'] |= {
          'used': len(counts) / levels,
          'dead': float(max(levels - len(counts), 0.0)),
        }
  return summaries


def flip_rates(before: Tensors, after: Tensors) -> dict[str, float]:
  """Share of the weights that moved to another level in a step, by layer.

  Args:
    before: what `observe` returned, on the host.
    after: the same one step later.

  Returns:
    {'LAYER/weights': share}.
  """
  rates = {}
  for layer, seen in after['weights'].items():
    changed = np.asarray(seen['codes']) != np.asarray(
      before['weights'][layer]['codes']
    )
    rates[f'{layer}/weights'] = float(np.mean(changed))
  return rates


def cosines(a: PyTree, b: PyTree) -> dict[str, float]:
  """Cosines between two gradients, by layer; NaN where one of them is 0.

  Args:
    a: gradient of a network's parameters, on the host.
    b: another gradient of the same parameters.

  Returns:
    {'LAYER/weights': cosine}.
  """
  flat = [traverse_util.flatten_dict(tree) for tree in (a, b)]
  found = {}
  for keys, x in flat[0].items():
    if not is_weight(keys, x):
      continue
    x, y = (np.ravel(tree[keys]).astype(np.float64) for tree in flat)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    layer = '/'.join(keys[:-1])
    found[f'{layer}/weights'] = float(x @ y) / norms if norms else np.nan
  return found
