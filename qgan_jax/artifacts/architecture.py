"""How a file stores a network's class, by name, and its attributes.

A family of `models` is stored under its name there. Any other class is stored
as 'module:Class', and is found only if the program itself has imported that
module: nothing is imported because a file names it. Attributes are JSON.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
import sys
from typing import Any

import flax.linen as nn

from qgan_jax import models
from qgan_jax.artifacts.described import MAX_SIZE
from qgan_jax.errors import UserError

_FLAX_FIELDS = ('parent', 'name')


def record_of(module: nn.Module) -> dict[str, Any]:
  """The record of a module in a file.

  Returns:
    'model': its family in `models`, or its class as 'module:Class';
    'model_kwargs': its attributes, or None if a file cannot hold them all, such
    as a function, a module, or a size that `module_of` refuses. An attribute
    that has its default value may be left out for that reason.
  """
  cls = type(module)
  family = [n for n in models.NAMES if models.find(n, 'Generator') is cls]
  kwargs = {
    field.name: getattr(module, field.name)
    for field in dataclasses.fields(module)
    if field.init and field.name not in _FLAX_FIELDS
  }
  plain = {
    name: value
    for name, value in kwargs.items()
    if _is_plain(value) and not (family and _is_above_limit(name, value))
  }
  try:
    held = cls(**plain) == module.clone(parent=None, name=None)
  except TypeError:  # One that has no default is missing.
    held = False
  return {
    'model': family[0] if family else f'{cls.__module__}:{cls.__qualname__}',
    'model_kwargs': plain if held else None,
  }


def module_of(record: Mapping[str, Any], path: Path) -> nn.Module:
  """The module that a file's record describes.

  Args:
    record: the file's header, not trusted.
    path: of the file, for error messages.

  Raises:
    UserError: its class is not imported, or not all of its attributes are in
      the file.
    ValueError, TypeError, LookupError: the record is invalid.
  """
  name, kwargs = record['model'], record['model_kwargs']
  if name in models.NAMES:
    cls = models.find(name, 'Generator')
  else:
    cls = _imported(name, path)
  if kwargs is None:
    raise UserError(
      f'{path} does not hold all attributes of its network, a {name}: give it, '
      'load(path, module=…)'
    )
  for value in kwargs.values():
    _check_size(value)
  if name in models.NAMES:
    for key, value in kwargs.items():
      if _is_above_limit(key, value):
        raise ValueError(
          f'{key} is {value}, and at most {models.LIMITS[key]} are read'
        )
  # A module is hashable, and a list is not.
  module = cls(**{key: _with_tuples(value) for key, value in kwargs.items()})
  hash(module)
  return module


def _imported(name: str, path: Path) -> type[nn.Module]:
  """The class 'module:Class', of a module that is imported already.

  Looked up in the dictionaries of modules and classes themselves. `getattr`, or
  even `vars`, may load what a lazy module has not loaded yet.
  """
  place, _, qualified = name.partition(':')
  found: Any = sys.modules.get(place)
  for part in qualified.split('.'):
    try:
      found = object.__getattribute__(found, '__dict__').get(part)
    except AttributeError:
      found = None
  # No other class that happens to be known there, and nothing but a network.
  if (
    isinstance(found, type)
    and issubclass(found, nn.Module)
    and (found.__module__, found.__qualname__) == (place, qualified)
  ):
    return found
  raise UserError(
    f'{path} holds a network of the class {qualified!r} in {place!r}, which is '
    f'not here: import {place!r} first (a command does, by '
    f'--module={place}), or give the network, load(path, module=…)'
  )


def _is_plain(value: Any) -> bool:
  """Whether a file holds a value: JSON, tuples as lists, and no huge number."""
  if isinstance(value, tuple):
    return all(map(_is_plain, value))
  if type(value) is int:
    return abs(value) <= MAX_SIZE
  return value is None or type(value) in (bool, float, str)


def _with_tuples(value: Any) -> Any:
  """A value as it was before JSON, which knows no tuples."""
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _is_above_limit(key: str, value: Any) -> bool:
  """Whether a family's attribute is larger than in training."""
  if key not in models.LIMITS:
    return False
  largest = max(value) if isinstance(value, list | tuple) else value
  return largest > models.LIMITS[key]


def _check_size(value: Any) -> None:
  """A network of 10³⁰ stages would take forever to describe."""
  for item in value if isinstance(value, list) else [value]:
    if isinstance(item, list):
      _check_size(item)
    elif isinstance(item, int) and abs(item) > MAX_SIZE:
      raise ValueError(f'an attribute is {item}')
