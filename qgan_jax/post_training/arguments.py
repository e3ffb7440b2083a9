"""Checks the arguments of `quantize` and brings them into one form."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import numbers
from typing import Any

import flax.core
import flax.errors
import flax.linen as nn
import jax
import numpy as np

from qgan_jax import quantizers
from qgan_jax.precision import FLOAT_BITS

PyTree = Any
Pair = tuple[nn.Module, Mapping[str, PyTree]]
Inputs = tuple[Any, ...]


def check(bit_width: Any, quantizer: str, activation_quantizer: str) -> None:
  """Raises a ValueError for a width or a quantizer that does not exist."""
  whole = isinstance(bit_width, numbers.Integral) and bit_width is not True
  if not whole or not (1 <= bit_width <= 16 or bit_width == FLOAT_BITS):
    raise ValueError(
      f'bit_width={bit_width!r}: a whole number from 1 to 16, or {FLOAT_BITS} '
      'for float'
    )
  names = [name for name in quantizers.WEIGHTS if name != 'grid']
  if quantizer not in names:
    raise ValueError(f'quantizer={quantizer!r}: one of {", ".join(names)}')
  if activation_quantizer not in quantizers.ACTIVATIONS:
    raise ValueError(
      f'activation_quantizer={activation_quantizer!r}: one of '
      + ', '.join(quantizers.ACTIVATIONS)
    )


def network_of(given: Any, which: str) -> Pair:
  """Turns what was given as a network into (module, variables)."""
  remedy = 'give (module, variables), or module.bind(variables)'
  if isinstance(given, nn.Module):
    if given.scope is None:
      raise ValueError(
        f'{which} is a {type(given).__name__} without variables: {remedy}'
      )
    module, variables = given.unbind()
  elif isinstance(given, Sequence) and len(given) == 2:
    module, variables = given
  else:
    module, variables = given, None
  # Known by name: to import NNX for every network would take a second.
  if any(
    base.__module__.startswith('flax.nnx') for base in type(module).__mro__
  ):
    raise ValueError(
      f'{which} is an NNX module, and only Linen modules (flax.linen.Module) '
      'can be quantized'
    )
  if not isinstance(module, nn.Module) or not isinstance(variables, Mapping):
    raise ValueError(f'{which} is a {type(given).__name__}: {remedy}')
  name = type(module).__name__
  if not isinstance(variables.get('params'), Mapping):
    raise ValueError(
      f"the variables of {name} have no 'params', only "
      f'{", ".join(map(str, variables)) or "nothing"}: give all that '
      f'{name}.init returns'
    )
  try:
    hash(module)  # It is a static argument of compiled functions.
  except TypeError:
    raise ValueError(
      f'{name} has an attribute that cannot be hashed: make lists tuples, and '
      'arrays variables'
    ) from None
  return module, nn.meta.unbox(flax.core.unfreeze(dict(variables)))


def inputs_of(name: str, given: Any) -> Inputs | None:
  """Turns given inputs into a tuple of arrays or of their shapes."""
  if given is None:
    return None
  inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
  for x in inputs:
    if not (hasattr(x, 'shape') and hasattr(x, 'dtype')) or not x.shape:
      raise ValueError(
        f'{name} has a {type(x).__name__} in it: give an array [N, …], or a '
        'tuple of arrays'
      )
  if not inputs or len({x.shape[0] for x in inputs}) > 1:
    raise ValueError(
      f'{name} is {len(inputs)} arrays of {[x.shape[0] for x in inputs]} '
      'examples: give as many of each'
    )
  return inputs


def arrays_of(name: str, given: Any) -> Inputs:
  """Like `inputs_of`, but the inputs must be arrays of finite values."""
  inputs = inputs_of(name, given) or ()
  for x in inputs:
    if isinstance(x, jax.ShapeDtypeStruct) or not len(x):
      raise ValueError(f'{name} has no values in it: give an array [N, …]')
    if not np.isfinite(np.asarray(x)).all():
      raise ValueError(f'{name} has values that are not finite')
  return inputs


@contextlib.contextmanager
def naming_the_call(module: nn.Module, inputs: Inputs) -> Iterator[None]:
  """Turns errors of a call into a ValueError with the shapes of its inputs."""
  try:
    yield
  except (TypeError, ValueError, flax.errors.FlaxError) as error:
    shapes = ' and '.join(str(list(x.shape)) for x in inputs)
    (first, *_) = str(error).strip().splitlines() or [type(error).__name__]
    raise ValueError(
      f'{type(module).__name__} cannot be called with {shapes}: {first}'
    ) from error
