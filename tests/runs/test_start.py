"""A run that starts from the networks of another."""

import json
import sys

import jax
import numpy as np
import pytest
import tiny_run

from qgan_jax import quantizers
from qgan_jax.errors import UserError
from qgan_jax.runs import build, inputs
from qgan_jax.runs.folder import identity
from qgan_jax.runs.start import load_start
from qgan_jax.training.checkpoints import Checkpoints

FLOAT = 'norm=batch,bits=32,seed=3'
DATASET = tiny_run.make_dataset()


def make(arg):
  return build.set_up(tiny_run.make_config(arg), DATASET)


@pytest.fixture(scope='module')
def ended(tmp_path_factory):
  """The folder of a float run, and the state that it ended with."""
  folder = tmp_path_factory.mktemp('runs') / 'float'
  setup = make(FLOAT)
  state = setup.init_state()
  # Training has moved the weights, and the average behind them.
  state = state.replace(
    step=np.int32(7),
    average=jax.tree.map(lambda x: x + np.float32(0.01), state.average),
  )
  Checkpoints(folder / 'checkpoints').save(7, state)
  record = identity(setup.config, 'digits')
  (folder / 'config.json').write_text(json.dumps(record))
  return folder, state


def test_what_only_training_needs_is_not_needed_for_scores(monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  for arg, message in (
    ('source=digits,init_from=/gone', '/gone'),
    ('source=digits,logging.tracker=wandb', 'wandb'),
  ):
    config = tiny_run.make_config(arg)
    inputs.check([config])
    with pytest.raises(UserError, match=message):
      inputs.check_for_training([config])


def test_networks_are_taken_and_all_else_starts_anew(ended):
  folder, old = ended
  # BatchNorm's statistics are the average's own, as it was scored with.
  scored = make(FLOAT).sampler().quantized(old).variables
  setup = make('norm=batch,bits=4,quantizer=lsq,seed=5')
  new = setup.init_state(load_start(str(folder), setup))
  for got, expected in (
    (new.networks['generator'].params, old.average['generator']['params']),
    (new.networks['generator'].stats['batch_stats'], scored['batch_stats']),
    (new.average['generator']['params'], old.average['generator']['params']),
    (
      new.networks['discriminator'].params,
      old.networks['discriminator'].params,
    ),
  ):
    for x, y in zip(
      jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_array_equal(x, y)
  fresh = setup.init_state()
  assert new.step == 0
  np.testing.assert_array_equal(new.key, fresh.key)
  # Scales start from these weights.
  w = old.average['generator']['params']['up0']['kernel']
  scale = new.networks['generator'].learned['weights']['up0']['scale']
  expected = quantizers.lsq(axis=-1).fit(w, np.float32(4))['scale']
  np.testing.assert_allclose(scale, expected, rtol=1e-5)
  assert np.all(
    scale != fresh.networks['generator'].learned['weights']['up0']['scale']
  )


def test_what_cannot_be_started_from_is_named(ended, tmp_path):
  folder, _ = ended
  setup = make('norm=batch,bits=4')
  with pytest.raises(UserError, match='no folder of a run'):
    load_start(str(tmp_path), setup)
  other = make('norm=group,bits=4')
  with pytest.raises(UserError, match='give both runs the same networks'):
    load_start(str(folder), other)
  empty = tmp_path / 'empty'
  empty.mkdir()
  (empty / 'config.json').write_text((folder / 'config.json').read_text())
  with pytest.raises(UserError, match='no checkpoint'):
    load_start(str(empty), setup)
