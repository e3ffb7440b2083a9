"""Files of quantized networks, and the images that are drawn from them.

Parts that need JAX are imported when they are first used. So images are drawn
from the files of other runtimes without JAX, which starts in a fraction of the
time.
"""

import importlib
from typing import Any, TYPE_CHECKING

from qgan_jax.artifacts.drawer import Drawer
from qgan_jax.artifacts.drawing import open_drawer
from qgan_jax.artifacts.grids import grid, save_grid, to_uint8

if TYPE_CHECKING:
  from qgan_jax.artifacts.inference import images
  from qgan_jax.artifacts.packed import Artifact, load, read, save, Sizes

_WITH_JAX = {
  'Artifact': 'packed',
  'Sizes': 'packed',
  'images': 'inference',
  'load': 'packed',
  'read': 'packed',
  'save': 'packed',
}


def __getattr__(name: str) -> Any:
  if name not in _WITH_JAX:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_WITH_JAX[name]}')
  return getattr(module, name)


__all__ = [
  'Artifact',
  'Drawer',
  'Sizes',
  'grid',
  'images',
  'load',
  'open_drawer',
  'read',
  'save',
  'save_grid',
  'to_uint8',
]
