"""What is delivered: a quantized generator in a file, and images from it.

What needs JAX is imported where it is first used: a file of another runtime is
drawn from without it, and starts in a fraction of the time.
"""

import importlib
from typing import Any, TYPE_CHECKING

from qgan_jax.artifacts.drawing import Drawer, open_drawer
from qgan_jax.artifacts.grids import grid, save_grid, to_uint8

if TYPE_CHECKING:
  from qgan_jax.artifacts.generator import images, PackedGenerator
  from qgan_jax.artifacts.packed import load_generator, save_generator, Sizes

_WITH_JAX = {
  'PackedGenerator': 'generator',
  'Sizes': 'packed',
  'images': 'generator',
  'load_generator': 'packed',
  'save_generator': 'packed',
}


def __getattr__(name: str) -> Any:
  if name not in _WITH_JAX:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_WITH_JAX[name]}')
  return getattr(module, name)


__all__ = [
  'Drawer',
  'PackedGenerator',
  'Sizes',
  'grid',
  'images',
  'load_generator',
  'open_drawer',
  'save_generator',
  'save_grid',
  'to_uint8',
]
