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
  pictures.warn(dataset, conditional=True)
  assert bool(caplog.text) == bool(says)
  assert says in caplog.text
  caplog.clear()
  other = dataclasses.replace(dataset, test_images=seen[4:])
  pictures.warn(other, conditional=True)
  assert not caplog.text


@pytest.mark.parametrize('conditional', [True, False])
def test_classes_of_few_pictures_are_named(conditional, caplog):
  labels = np.repeat(np.arange(3, dtype=np.int32), (19, 20, 1))
  images = np.zeros((40, 4, 4, 1), np.uint8)
  dataset = ImageDataset(
    'pictures-0',
    train_images=images,
    train_labels=labels,
    test_images=images[:1] + 100,
    test_labels=labels[:1],
    num_classes=3,
    class_names=('ant', 'bee', 'cat'),
    pictures=('1a', '2b'),
  )
  pictures.warn(dataset, conditional=conditional)
  assert ('class(es) ant (19), cat (1): ' in caplog.text) == conditional
  assert 'bee' not in caplog.text
