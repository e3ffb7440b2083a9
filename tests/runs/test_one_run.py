"""A folder belongs to one run: while it trains, and when it goes on."""

import shutil

import jax
import numpy as np
import pytest
from vae import IMAGES, SHORT, vae

import qgan_jax as q
from qgan_jax import records
from qgan_jax.errors import UserError
from qgan_jax.runs import trials
from qgan_jax.training import checkpoints as checkpoints_lib
from qgan_jax.training.checkpoints import Checkpoints

SETTINGS = SHORT | {
  'steps': 4,
  'log_every': 2,
  'checkpoint_every': 2,
  'sample_every': 4,
  'eval_every': 4,
}


@pytest.fixture(autouse=True)
def nothing_is_scored(monkeypatch):
  """What a run delivers is not what is tested here, and takes time."""
  scores = {'best': {'step': 0}}
  monkeypatch.setattr(trials, 'deliver', lambda *_, **__: (scores, ''))


def assert_same(a, b):
  for x, y in zip(
    jax.tree.leaves(a.network.variables),
    jax.tree.leaves(b.network.variables),
    strict=True,
  ):
    np.testing.assert_array_equal(x, y)


def train(folder, **settings):
  return q.train(vae(), IMAGES, workdir=folder, **SETTINGS | settings)


def test_a_checkpoint_knows_its_config(tmp_path):
  whole = train(tmp_path)
  record = (tmp_path / 'config.json').read_text()
  (tmp_path / 'config.json').unlink()
  with pytest.raises(
    ValueError, match='another config, says .*/checkpoints/2;'
  ) as error:
    train(tmp_path, learning_rate=0.5)
  assert '-> 0.5' in str(error.value)
  assert not (tmp_path / 'config.json').exists()
  assert_same(train(tmp_path), whole)
  assert (tmp_path / 'config.json').read_text() == record


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path, monkeypatch):
  """It does not say which config it belongs to."""
  pack = checkpoints_lib.pack

  def pack_before(state, about):
    return pack(state, {k: v for k, v in about.items() if k != 'about'})

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints_lib, 'pack', pack_before)
    whole = train(tmp_path)
  (tmp_path / 'config.json').unlink()
  assert_same(train(tmp_path), whole)


def test_a_folder_that_another_process_has_is_left_alone(tmp_path):
  with records.alone(tmp_path), pytest.raises(ValueError, match='at work in'):
    train(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [records.LOCK]


def test_a_folder_that_vanishes_ends_the_run(tmp_path, monkeypatch):
  folder = tmp_path / 'run'
  said = []

  # Between two saves: one that is being made may make its folder again.
  def save_and_vanish(self, step, *args, real=Checkpoints.save):
    real(self, step, *args)
    try:
      with records.alone(folder):
        pass
    except UserError as error:
      said.append(str(error))
    folder.rename(tmp_path / 'moved')
    shutil.rmtree(tmp_path / 'moved')

  monkeypatch.setattr(Checkpoints, 'save', save_and_vanish)
  with pytest.raises(ValueError, match='removed|gone|cannot'):
    train(folder, steps=2000, sample_every=2000, eval_every=2000)
  assert len(said) == 1
  assert 'another process is at work' in said[0]
  assert not folder.exists()
