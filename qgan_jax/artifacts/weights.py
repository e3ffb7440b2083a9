"""A generator's weights as a file holds them: codes, and a map of the zeros.

A weight is stored in one of two ways, whichever takes fewer bytes: the codes of
all its values in order; or a bitmap of those that are not 0, and the codes of
these alone. Pruned weights need the second where the quantizer has no level at
0; ternary ones, and ranges set by an outlier, often gain by it.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.bits import MAX_BITS, pack, packed_size, unpack
from qgan_jax.precision import (
  Bits,
  FLOAT_BITS,
  is_weight,
  Learned,
  Precision,
  width,
)

PyTree = Any
Tensors = dict[str, np.ndarray]
Record = list[Any]  # [bits of a code, offset, shape]


def float32(x: Any) -> np.ndarray:
  """An array as it is written."""
  return np.asarray(x, np.float32, order='C')


def encode_weights(
  params: PyTree, precision: Precision, bits: Bits, learned: Learned
) -> tuple[Tensors, dict[str, Record]]:
  """Quantizes and packs all weights of a network.

  Args:
    params: float parameters.
    precision: how they are quantized.
    bits: and to how many bits.
    learned: parameters of learned quantizers.

  Returns:
    (tensors: `variables/params/…` of every weight that is not stored as plain
    float32, with its `quantizer/…` and `bitmap/…`; the record of each by its
    name `params/…`, where 32 bits are floats).
  """
  tensors: Tensors = {}
  records: dict[str, Record] = {}
  encoded = _encode(precision, params, bits, learned)
  for keys, w in traverse_util.flatten_dict(params).items():
    if not is_weight(keys, w):
      continue
    layer, name = '/'.join(keys[:-1]), '/'.join(('params', *keys))
    mask = np.asarray(encoded['masks'].get(layer, 1)) != 0
    shape = list(w.shape)
    quantized = layer in encoded['codes']
    if quantized and width(bits.weights, layer) < FLOAT_BITS:
      fitted, codes, values = encoded['codes'][layer]
      codes, values = np.asarray(codes), float32(values)
      n, offset = _width(codes)
      if n <= MAX_BITS:
        kept = (values != 0) & mask
        exact = not (values[~np.broadcast_to(mask, values.shape)] != 0).any()
        few, few_offset = _width(codes[kept])
        sparse = packed_size(w.size, 1) + packed_size(kept.sum(), few)
        if not exact or sparse < packed_size(w.size, n):
          tensors[f'bitmap/{name}'] = pack(kept, 1)
          n, offset, codes = few, few_offset, codes[kept]
        tensors[f'variables/{name}'] = pack(codes - offset, n)
        for key, value in fitted.items():
          tensors[f'quantizer/{name}/{key}'] = float32(value)
        records[name] = [n, offset, shape]
        continue
      # A very fine grid: stored as the floats that it is.
    else:
      values = float32(w)
    values = float32(values * mask)
    kept = values != 0
    if packed_size(w.size, 1) + 4 * kept.sum() < 4 * w.size:
      tensors[f'bitmap/{name}'] = pack(kept, 1)
      tensors[f'variables/{name}'] = values[kept]
      records[name] = [FLOAT_BITS, 0, shape]
    else:
      tensors[f'variables/{name}'] = values
  return tensors, records


@functools.partial(jax.jit, static_argnums=0)
def _encode(
  precision: Precision, params: PyTree, bits: Bits, learned: Learned
) -> dict[str, dict[str, Any]]:
  """Masks, and (params, codes, values) of what has a quantizer, by layer.

  Compiled as training is: the last digit of a scale may depend on that, since
  XLA fuses divisions.
  """
  masks, encoded = precision.masks(params, bits), {}
  for keys, w in traverse_util.flatten_dict(params).items():
    layer = '/'.join(keys[:-1])
    spec = precision.spec('weights', layer)
    if spec is None or not is_weight(keys, w):
      continue
    w = w * masks[layer] if masks else w
    n = width(bits.weights, layer)
    fitted = precision.weight_params(layer, w, n, learned)
    codes = spec.quantizer.encode(w, fitted, n)
    # Not what the codes decode to: those of a very fine grid may saturate.
    encoded[layer] = fitted, codes, spec.quantizer.apply(w, fitted, n)
  return {'masks': masks, 'codes': encoded}


def _width(codes: np.ndarray) -> tuple[int, int]:
  """The bits that codes need, and what is taken off them before."""
  offset = int(codes.min(initial=0))
  return max(1, (int(codes.max(initial=0)) - offset).bit_length()), offset


def decode_weight(
  name: str,
  tensors: Tensors,
  record: Sequence[Any],
  precision: Precision,
  bits: Bits,
) -> np.ndarray:
  """One weight, float32, from what `encode_weights` made of it.

  Raises:
    ValueError, TypeError, LookupError: it does not fit together.
  """
  n, offset, shape = record
  if any(type(i) is not int for i in (n, offset, *shape)):
    raise TypeError(f'codes of {name} are described by {record}')
  if len(shape) < 2 or min(shape) < 0 or not -(2**MAX_BITS) < offset <= 0:
    raise ValueError(f'codes of {name} are described by {record}')
  stored = tensors[f'variables/{name}']
  kept = np.ones(1, bool)
  inside: Sequence[int] = shape
  if f'bitmap/{name}' in tensors:
    kept = unpack(tensors[f'bitmap/{name}'], 1, shape).astype(bool)
    inside = (int(kept.sum()),)
  if n == FLOAT_BITS:
    if stored.shape != tuple(inside) or stored.dtype != np.float32:
      raise ValueError(f'{name} is {stored.dtype}{list(stored.shape)}')
    return _spread(stored, kept, shape)
  codes = _spread(unpack(stored, n, inside) + offset, kept, shape)
  layer = '/'.join(name.split('/')[1:-1])
  spec = precision.spec('weights', layer)
  if spec is None:
    raise ValueError(f'{name} has codes and no quantizer')
  quantizer, width_ = spec.quantizer, width(bits.weights, layer)
  expected = jax.eval_shape(
    quantizer.fit, jax.ShapeDtypeStruct(codes.shape, jnp.float32), width_
  )
  params = read_params(f'quantizer/{name}', tensors, expected)
  values = quantizer.decode(jnp.asarray(codes), params, width_)
  return np.where(kept, np.asarray(values), np.float32(0))


def _spread(
  values: np.ndarray, kept: np.ndarray, shape: Sequence[int]
) -> np.ndarray:
  """Values where they are kept; where not, one of them, or 0 for floats."""
  if values.shape == tuple(shape):
    return values
  empty = values.dtype == np.float32 or not values.size
  filled = np.full(shape, 0 if empty else values.min(), values.dtype)
  filled[kept] = values
  return filled


def read_params(
  prefix: str, tensors: Tensors, expected: Mapping[str, Any]
) -> dict[str, jax.Array]:
  """A quantizer's parameters.

  Raises:
    ValueError, LookupError: they are not as expected.
  """
  params = {key: tensors[f'{prefix}/{key}'] for key in expected}
  for key, value in params.items():
    if value.shape != expected[key].shape or value.dtype != np.float32:
      raise ValueError(f'{key} of {prefix} is {value.dtype}{list(value.shape)}')
  return {key: jnp.asarray(value) for key, value in params.items()}
