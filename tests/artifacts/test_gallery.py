import hashlib
from pathlib import Path

import numpy as np
import pytest

import qgan_jax
from qgan_jax import artifacts
from qgan_jax.artifacts import gallery
from qgan_jax.artifacts.drawer import batches
from qgan_jax.errors import UserError

FOLDER = Path(qgan_jax.__file__).parent / 'gallery'


def test_it_is_small_enough_to_come_with_the_package():
  assert gallery.names()
  assert sum(path.stat().st_size for path in FOLDER.glob('*.qgan')) < 500_000


@pytest.mark.parametrize('name', gallery.names())
def test_each_draws_pictures_that_differ(name):
  path = Path(gallery.path_of(f'gallery:{name}'))
  ((images, _),) = batches(artifacts.open_drawer(path), num=16, seed=0)
  assert len({image.tobytes() for image in images}) == 16
  # Noise has no two neighbours that are alike; a blank picture has no others.
  pixels = images.astype(float)
  steps = np.abs(np.diff(pixels, axis=2)).mean()
  assert 1 < steps < np.abs(pixels - pixels.mean()).mean()


@pytest.mark.parametrize('name', gallery.names())
def test_where_it_comes_from_is_said(name):
  content = Path(gallery.path_of(f'gallery:{name}')).read_bytes()
  digest = hashlib.sha256(content).hexdigest()
  lines = (FOLDER / 'README.md').read_text().splitlines()
  (line,) = (line for line in lines if line.startswith(f'| `{name}` '))
  assert f'{len(content):,}' in line
  assert f'{digest[:12]}' in line


def test_what_it_does_not_hold_is_one_sentence():
  name = gallery.names()[0]
  with pytest.raises(UserError, match=f'holds .*{name}.*did you mean'):
    gallery.path_of(f'gallery:{name}x')
  assert gallery.path_of('gallery/x.qgan') == 'gallery/x.qgan'
