"""What scores see of transparent images."""

import numpy as np

from qgan_jax import config as config_lib
from qgan_jax import metrics
from qgan_jax.data import ImageDataset
from qgan_jax.runs import build


def test_extractors_see_three_channels(monkeypatch):
  seen = []

  def extract(images):
    seen.append(images)
    return metrics.Features(images.reshape(len(images), -1), None)

  def extractor(name, train, train_labels, test, *rest):
    seen.extend((train, test))
    return metrics.Extractor(name, '', '', '', None, extract)

  monkeypatch.setattr(metrics, 'classifier_extractor', extractor)
  images = np.zeros((2, 4, 4, 4), np.uint8)
  dataset = ImageDataset('pictures-1', images, None, images, None, 0)
  config = config_lib.resolve(config_lib.base(experiment='digits'))
  build.make_extractor(config, dataset).extract(images)
  assert len(seen) == 3
  for given in seen:
    np.testing.assert_array_equal(given, np.full((2, 4, 4, 3), 128))
