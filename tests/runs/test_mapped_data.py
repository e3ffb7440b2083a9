"""Where data that are more than a share of memory come from."""

import numpy as np
from PIL import Image
import pytest
import tiny_run

from qgan_jax.runs import build
from qgan_jax.training import machine


@pytest.mark.parametrize(('spare', 'expected'), [(0, []), (-1, ['pictures'])])
def test_a_quarter_of_memory_is_for_pictures(
  tmp_path, monkeypatch, spare, expected
):
  for i in range(10):
    pixels = np.full((16, 16), i, np.uint8)
    (tmp_path / 'own').mkdir(exist_ok=True)
    Image.fromarray(pixels).save(tmp_path / 'own' / f'{i}.png')
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path / 'cache'))
  needed = 10 * 16 * 16
  monkeypatch.setattr(machine, 'memory', lambda: 4 * needed + spare)
  config = tiny_run.make_config(
    f'source=folder,dir={tmp_path}/own,image_size=16,image_channels=1'
  )
  dataset = build.load_dataset(config, standin=False)
  assert len(dataset.train_images) + len(dataset.test_images) == 10
  assert [x.name for x in tmp_path.glob('cache/*')] == expected
