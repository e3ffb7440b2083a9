import dataclasses

import numpy as np
import pytest

from qgan_jax.data import ImageDataset
from qgan_jax.runs import pictures


@pytest.mark.parametrize(
  ('digests', 'says'), [(('1a', '2b'), '1 of 2 held-out pictures'), ((), '')]
)
def test_copies_are_counted_of_a_persons_own_pictures(digests, says, caplog):
  seen = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
  dataset = ImageDataset(
    'pictures-0',
    train_images=seen[:4],
    train_labels=None,
    test_images=np.stack([seen[2] ^ 1, seen[5]]),
    test_labels=None,
    num_classes=0,
    pictures=digests,
  )
  pictures.warn_of_copies(dataset)
  assert bool(caplog.text) == bool(says)
  assert says in caplog.text
  caplog.clear()
  pictures.warn_of_copies(dataclasses.replace(dataset, test_images=seen[4:]))
  assert not caplog.text
