"""Checks that the variables in a file are those of a module."""

from collections.abc import Mapping
import itertools
import math
from typing import Any

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.weights import Tensors
from qgan_jax.precision import arguments_for, Quantized

PyTree = Any
# Of a network: so many values, and so many for each byte of its file. Decoding
# takes up to 32 bytes for each.
_VALUES, _VALUES_PER_BYTE = 2**24, 16
_MAX_CALLS = 10_000  # Of layers, while a module is traced.


def not_finite(tensors: Tensors) -> str | None:
  """The name of a tensor with a value that is not finite, if there is one."""
  for name, x in tensors.items():
    if x.dtype == np.float32 and not np.isfinite(x).all():
      return name
  return None


def variables_of(network: Quantized) -> dict[str, PyTree]:
  """The shapes of the variables of a network's module, in their tree.

  Raises:
    ValueError: the module cannot be called with its inputs.
  """
  module, example = network.module, network.example()
  args, kwargs = arguments_for(module, example, {})
  calls = itertools.count()

  def count(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
    del context
    if next(calls) > _MAX_CALLS:
      raise ValueError(f'it has more than {_MAX_CALLS} layers')
    return next_fun(*args, **kwargs)

  # Traced without arithmetic or memory, however large the model says it is.
  try:
    with nn.intercept_methods(count):
      shapes = jax.eval_shape(
        lambda *args: module.init(jax.random.key(0), *args, **kwargs), *args
      )
  except Exception as error:  # Whatever a module of your own raises.
    name = type(module).__name__
    shown = ', '.join(str(list(x.shape)) for x in example)
    raise ValueError(f'{name} cannot be called with {shown}: {error}') from None
  return nn.meta.unbox(shapes)


def check_shapes(
  name: str,
  expected: Mapping[str, jax.ShapeDtypeStruct],
  found: Mapping[str, tuple[int, ...]],
) -> None:
  """Raises a ValueError if variables are not those of a module."""
  for key in sorted(expected.keys() | found.keys()):
    there = found.get(key)
    needed = expected[key].shape if key in expected else None
    if there != needed:
      raise ValueError(f'{key} has the shape {there}, and in {name} {needed}')


def check_number(
  expected: Mapping[str, jax.ShapeDtypeStruct], size: int
) -> None:
  """Raises a ValueError if a file of `size` bytes has too many values."""
  number = sum(math.prod(x.shape) for x in expected.values())
  most = _VALUES + _VALUES_PER_BYTE * size
  if number > most:
    raise ValueError(
      f'its network has {number} values, and a file of {size} bytes may have '
      f'{most}: {_VALUES} and {_VALUES_PER_BYTE} for each byte'
    )


def restored(
  expected: Mapping[str, PyTree], found: Tensors
) -> dict[str, PyTree]:
  """A module's variables, in the types that the module itself gives them.

  Args:
    expected: as `variables_of` returns them. Only their tree tells where the
      parts of a path end: names such as that of `nn.SpectralNorm`'s vector,
      'Dense_0/kernel/u', have slashes themselves.
    found: by path.
  """
  for name, x in found.items():
    if x.dtype != np.float32:
      raise ValueError(f'{name} is {x.dtype}')
  typed = {
    path: jnp.asarray(found['/'.join(path)], like.dtype)
    for path, like in traverse_util.flatten_dict(expected).items()
  }
  return traverse_util.unflatten_dict(typed)
