"""Image data sets as uint8 arrays, and batches by step number."""

from qgan_jax.data.batches import batch_indices, Batches, prefetched
from qgan_jax.data.dataset import ImageDataset
from qgan_jax.data.duplicates import near_duplicates
from qgan_jax.data.sources import check, load

__all__ = [
  'Batches',
  'ImageDataset',
  'batch_indices',
  'check',
  'load',
  'near_duplicates',
  'prefetched',
]
