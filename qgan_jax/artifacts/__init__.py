"""What is delivered: a quantized generator in a file, and images from it."""

from qgan_jax.artifacts.generator import images, PackedGenerator
from qgan_jax.artifacts.grids import grid, save_grid, to_uint8
from qgan_jax.artifacts.packed import load_generator, save_generator, Sizes

__all__ = [
  'PackedGenerator',
  'Sizes',
  'grid',
  'images',
  'load_generator',
  'save_generator',
  'save_grid',
  'to_uint8',
]
