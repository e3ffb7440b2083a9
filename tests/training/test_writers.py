"""What is compared across runs, read by the readers of those who compare."""

import importlib.util
import json
import struct

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)
from tensorboard.plugins.hparams import plugin_data_pb2
from wandb.proto import wandb_internal_pb2

from qgan_jax.errors import UserError
from qgan_jax.training import writers
from qgan_jax.training.tracking import Tracker

HYPERPARAMETERS = {'bits': 8, 'loss': 'hinge', 'flip': False, 'dir': None}
SCORES = {'frechet_distance': 3.5, 'precision': 0.5, 'reference': 'digits'}


def track(workdir, first_step=0, **kwargs):
  return Tracker(
    workdir,
    total_steps=20,
    first_step=first_step,
    dataset='digits',
    experiment='page',
    hyperparameters=HYPERPARAMETERS,
    **kwargs,
  )


def hparams(board, tag):
  (value,) = (
    v for k, v in board.summary_metadata.items() if k == f'_hparams_/{tag}'
  )
  return plugin_data_pb2.HParamsPluginData.FromString(value.plugin_data.content)


def test_tensorboard_compares_runs_by_hyperparameters_and_scores(tmp_path):
  with track(tmp_path) as run:
    run.log(10, {'loss': 1.0})
    run.scores(10, SCORES)
  board = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
  given = hparams(board, 'session_start_info').session_start_info.hparams
  assert given['bits'].number_value == 8
  assert given['loss'].string_value == 'hinge'
  assert given['flip'].HasField('bool_value')
  assert 'dir' not in given
  metrics = hparams(board, 'experiment').experiment.metric_infos
  assert {'frechet_distance', 'precision'} <= {m.name.tag for m in metrics}
  ended = hparams(board, 'session_end_info')
  assert ended.HasField('session_end_info')
  assert [(e.step, e.value) for e in board.Scalars('frechet_distance')] == [
    (10, 3.5)
  ]


def messages(content):
  """Of a .wandb file: LevelDB's log format behind seven bytes of its own."""
  place, message = 7, b''
  while place < len(content):
    left = 32768 - place % 32768
    if left < 7:  # No header fits into the block's end, which is filled up.
      place += left
      continue
    _, size, kind = struct.unpack_from('<IHB', content, place)
    place += 7
    message += content[place : place + size]
    place += size
    if kind in (1, 4):  # A whole one, or the last piece of one.
      yield message
      message = b''


def offline_records(workdir):
  """Of each session, by the order of their names: its records."""
  return [
    [
      wandb_internal_pb2.Record.FromString(message)
      for message in messages(path.read_bytes())
    ]
    for path in sorted(workdir.glob('wandb/offline-run-*/*.wandb'))
  ]


def items(update):
  return {
    item.key or '/'.join(item.nested_key): json.loads(item.value_json)
    for item in update
  }


def test_weights_and_biases_is_told_the_same(tmp_path, monkeypatch):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.delenv('WANDB_PROJECT', raising=False)
  workdir = tmp_path / 'sweep' / 'bits=8'
  with track(workdir, tracker='wandb') as run:
    run.log(10, {'loss': 1.5})
    run.images(10, 'samples', np.zeros((4, 4, 1), np.uint8))
  with track(workdir, 10, tracker='wandb') as run:
    run.log(20, {'loss': 0.5})
    run.scores(20, SCORES)
  sessions = offline_records(workdir)
  started = [
    r.run for records in sessions for r in records if r.HasField('run')
  ]
  assert len({run.run_id for run in started}) == 1
  assert started[0].project == 'page'
  assert started[0].display_name == 'bits=8'
  assert started[0].run_group == 'sweep'
  assert items(started[0].config.update)['loss'] == 'hinge'
  rows = [
    items(r.history.item)
    for records in sessions
    for r in records
    if r.HasField('history')
  ]
  assert [(r['_step'], r['loss']) for r in rows if 'loss' in r] == [
    (10, 1.5),
    (20, 0.5),
  ]
  pictures = [r['_step'] for r in rows if any('samples' in k for k in r)]
  assert pictures == [10]
  summary = {}
  for record in sessions[-1]:
    summary |= items(record.summary.update)
  assert summary['best/frechet_distance'] == 3.5
  assert summary['best/step'] == 20
  assert 'best/reference' not in summary


def test_a_run_that_begins_anew_is_another_one_there(tmp_path, monkeypatch):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  names = []
  for _ in range(2):
    with track(tmp_path, tracker='wandb'):
      names.append((tmp_path / 'wandb' / 'run_id').read_text())
  assert names[0] != names[1]


def test_a_missing_package_is_one_sentence(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  writers.check_tracker('none')
  with pytest.raises(UserError, match=r"pip install 'qgan_jax\[wandb\]'"):
    writers.check_tracker('wandb')
