"""A network's weights in a file: codes, and maybe a bitmap of the zeros.

A weight is stored in one of two ways, whichever takes fewer bytes: the codes of
all its values in order; or a bitmap of those that are not 0, and only the codes
of these. Pruned weights need the second if the quantizer has no level at 0. It
also often saves bytes for ternary weights, and for ranges set by an outlier.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.bits import MAX_BITS, pack, packed_size, unpack
from qgan_jax.precision import Bits, FLOAT_BITS, Precision, Quantized, width

PyTree = Any
Tensors = dict[str, np.ndarray]
Record = list[Any]  # [bits of a code, offset, shape]


def float32(x: Any) -> np.ndarray:
  """An array as it is written to a file."""
  return np.asarray(x, np.float32, order='C')


def encode_weights(network: Quantized) -> tuple[Tensors, dict[str, Record]]:
  """Quantizes and packs all weights of a network.

  Returns:
    (tensors: for every weight that is not stored as plain float32,
    `variables/params/…` with its `quantizer/…` and `bitmap/…`; the record of
    each weight by its name `params/…`, in which 32 bits mean float).
  """
  tensors: Tensors = {}
  records: dict[str, Record] = {}
  encoded = _encode(network)
  params = network.variables['params']
  for keys, w in traverse_util.flatten_dict(params).items():
    layer = network.precision.weight_path(keys, w)
    if layer is None:
      continue
    name = '/'.join(('params', *keys))
    mask = np.asarray(encoded['masks'].get(layer, 1)) != 0
    shape = list(w.shape)
    quantized = layer in encoded['codes']
    if quantized and width(network.bits.weights, layer) < FLOAT_BITS:
      fitted, codes, values, faithful = encoded['codes'][layer]
      codes, values = np.asarray(codes), float32(values)
      n, offset = _width(codes)
      if n <= MAX_BITS and faithful:
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
      # No codes decode to it: stored as the floats that it is.
      values = float32(w) if network.rounded else values
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


@jax.jit
def _encode(network: Quantized) -> dict[str, dict[str, Any]]:
  """Masks, and (params, codes, values, whether they fit) of what has codes.

  By layer. Compiled as training is: the last digit of a scale may depend on
  that, since XLA fuses divisions.
  """
  precision, bits = network.precision, network.bits
  params = network.variables['params']
  pruned = precision.masks(params, bits)
  masks, encoded = dict(pruned), {}
  for keys, w in traverse_util.flatten_dict(params).items():
    layer = precision.weight_path(keys, w)
    spec = None if layer is None else precision.spec('weights', layer)
    if layer is None or spec is None:
      continue
    w = w * pruned[layer] if pruned else w
    n = width(bits.weights, layer)
    fitted = precision.weight_params(layer, w, n, network.learned)
    codes = spec.quantizer.encode(w, fitted, n)
    faithful = jnp.array(True)
    if network.rounded:
      # What is 0 was maybe pruned, where the quantizer has no level at 0.
      masks[layer] = w != 0
      values = spec.quantizer.decode(codes, fitted, n)
      faithful = jnp.all(jnp.where(w != 0, values == w, True))
    else:
      # Not what the codes decode to: those of a very fine grid may saturate.
      values = spec.quantizer.apply(w, fitted, n)
    encoded[layer] = fitted, codes, values, faithful
  return {'masks': masks, 'codes': encoded}


def _width(codes: np.ndarray) -> tuple[int, int]:
  """The bits that codes need, and what is taken off them before."""
  offset = int(codes.min(initial=0))
  return max(1, (int(codes.max(initial=0)) - offset).bit_length()), offset


def shape_of(name: str, record: Sequence[Any]) -> tuple[int, ...]:
  """The shape of a weight, from a file's record of its codes.

  Raises:
    ValueError, TypeError: the record is invalid.
  """
  _, _, shape = record
  if len(shape) < 2 or any(type(n) is not int or n < 0 for n in shape):
    raise ValueError(f'codes of {name} are described by {record}')
  return tuple(shape)


class Decoded(NamedTuple):
  """A weight read from a file.

  Attributes:
    layer: its path in rules.
    values: float32.
    params: its quantizer's parameters; None if no codes are stored.
  """

  layer: str
  values: np.ndarray
  params: dict[str, jax.Array] | None


def decode_weight(
  name: str,
  tensors: Tensors,
  record: Sequence[Any],
  precision: Precision,
  bits: Bits,
) -> Decoded:
  """Decodes one weight that `encode_weights` packed.

  Raises:
    ValueError, TypeError, LookupError: its parts do not match.
  """
  n, offset, _ = record
  shape = shape_of(name, record)
  if type(n) is not int or type(offset) is not int:
    raise TypeError(f'codes of {name} are described by {record}')
  if not -(2**MAX_BITS) < offset <= 0:
    raise ValueError(f'codes of {name} are described by {record}')
  stored = tensors[f'variables/{name}']
  kept = np.ones(1, bool)
  inside: Sequence[int] = shape
  if f'bitmap/{name}' in tensors:
    kept = unpack(tensors[f'bitmap/{name}'], 1, shape).astype(bool)
    inside = (int(kept.sum()),)
  weight = jax.ShapeDtypeStruct(shape, jnp.float32)
  layer = precision.weight_path(tuple(name.split('/')[1:]), weight)
  if layer is None:
    raise ValueError(f'{name} is no weight')
  if n == FLOAT_BITS:
    if stored.shape != tuple(inside) or stored.dtype != np.float32:
      raise ValueError(f'{name} is {stored.dtype}{list(stored.shape)}')
    return Decoded(layer, _spread(stored, kept, shape), None)
  codes = _spread(unpack(stored, n, inside) + offset, kept, shape)
  spec = precision.spec('weights', layer)
  if spec is None:
    raise ValueError(f'{name} has codes and no quantizer')
  quantizer, width_ = spec.quantizer, width(bits.weights, layer)
  expected = jax.eval_shape(quantizer.fit, weight, width_)
  params = read_params(
    f'quantizer/{name}', tensors, expected, quantizer.learned
  )
  values = quantizer.decode(jnp.asarray(codes), params, width_)
  return Decoded(
    layer, np.where(kept, np.asarray(values), np.float32(0)), params
  )


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
  prefix: str,
  tensors: Tensors,
  expected: Mapping[str, Any],
  learned: Sequence[str],
) -> dict[str, jax.Array]:
  """A quantizer's parameters.

  Args:
    prefix: of their names.
    tensors: of the file.
    expected: their shapes.
    learned: names of the learned ones. A learned scale may be negative, since
      only its magnitude counts; no other scale may.

  Raises:
    ValueError, LookupError: they are not as expected.
  """
  params = {key: tensors[f'{prefix}/{key}'] for key in expected}
  for key, value in params.items():
    if value.shape != expected[key].shape or value.dtype != np.float32:
      raise ValueError(f'{key} of {prefix} is {value.dtype}{list(value.shape)}')
    if key == 'scale' and key not in learned and (value < 0).any():
      raise ValueError(f'{key} of {prefix} is below 0')
  return {key: jnp.asarray(value) for key, value in params.items()}
