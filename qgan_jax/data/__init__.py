"""Image data sets as uint8 arrays, and batches by step number."""

from qgan_jax.data.batches import batch_indices, Batches, prefetched
from qgan_jax.data.dataset import ImageDataset, labels_in_proportion
from qgan_jax.data.duplicates import near_duplicates
from qgan_jax.data.sources import check, load

__all__ = [
  'Batches',
  'ImageDataset',
  'batch_indices',
  'check',
  'labels_in_proportion',
  'load',
  'near_duplicates',
  'prefetched',
]
