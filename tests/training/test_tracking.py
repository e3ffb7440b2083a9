import io
import json
import math
import os
from pathlib import Path
import pty
import sys
import time

import numpy as np
from PIL import Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
  EventAccumulator,
)

from qgan_jax.errors import UserError
from qgan_jax.training import tracking
from qgan_jax.training.tracking import Tracker

COMPILING = 'compiling the training step…'


def _records(workdir):
  def refuse(name):
    raise ValueError(f'{name} is not JSON')

  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line, parse_constant=refuse) for line in lines]


def _board(workdir):
  board = EventAccumulator(str(workdir / 'tensorboard'))
  return board.Reload()


def _scalars(workdir, name):
  return [(e.step, e.value) for e in _board(workdir).Scalars(name)]


def test_metrics_are_strict_json_on_disk_at_once_and_in_tensorboard(tmp_path):
  values = [1.5, math.nan, math.inf, -math.inf, np.float32(0.1)]
  names = ['loss/d', 'b', 'c', 'd', 'e']
  metrics = dict(zip(names, values, strict=True))
  with Tracker(
    tmp_path / 'new' / 'run', total_steps=20, first_step=0, dataset='digits'
  ) as run:
    run.log(10, metrics)
    run.log(20, {**metrics, 'loss/d': 2.0})
    records = _records(tmp_path / 'new' / 'run')
    assert [record['step'] for record in records] == [10, 20]
    assert [record['dataset'] for record in records] == ['digits'] * 2
    found = [float(records[0][name]) for name in names]
    np.testing.assert_array_equal(found, [float(value) for value in values])
    assert _scalars(tmp_path / 'new' / 'run', 'loss/d') == [(10, 1.5), (20, 2)]


@pytest.mark.parametrize('channels', [1, 3])
def test_images_come_back_from_tensorboard(channels, tmp_path):
  grid = np.random.default_rng(0).integers(0, 256, (8, 12, channels), np.uint8)
  with Tracker(tmp_path, total_steps=1, first_step=0, dataset='digits') as run:
    run.images(1, 'samples', grid)
  (event,) = _board(tmp_path).Images('samples')
  found = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
  assert event.step == 1
  np.testing.assert_array_equal(found, np.broadcast_to(grid, found.shape))
  assert found.shape == (8, 12, 3)


def _killed_run(workdir):
  with Tracker(workdir, total_steps=50, first_step=0, dataset='digits') as run:
    for step in (10, 20, 30):
      run.log(step, {'loss': float(step)})
      run.images(step, 'samples', np.full((2, 2, 1), step, np.uint8))
  with open(workdir / 'metrics.jsonl', 'ab') as file:
    file.write(b'{"step": 40, "lo')


@pytest.mark.parametrize('first_step', [0, 20, 25, 30])
def test_a_resumed_run_holds_each_step_once(first_step, tmp_path):
  _killed_run(tmp_path)
  with Tracker(
    tmp_path, total_steps=50, first_step=first_step, dataset='digits'
  ) as run:
    kept = [step for step in (10, 20, 30) if step <= first_step]
    assert [record['step'] for record in _records(tmp_path)] == kept
    run.log(40, {'loss': -1.0})
    run.images(40, 'samples', np.zeros((2, 2, 1), np.uint8))
  assert [record['step'] for record in _records(tmp_path)] == [*kept, 40]
  wanted = [*((step, step) for step in kept), (40, -1.0)]
  assert _scalars(tmp_path, 'loss') == wanted
  images = _board(tmp_path).Images('samples')
  assert [image.step for image in images] == [*kept, 40]
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'metrics.jsonl',
    'tensorboard',
  ]


def test_damaged_lines_are_dropped_in_one_sentence_and_a_half_one_too(
  tmp_path, capsys
):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1}\n\xff\n[2]\n{}\n{"step": "x"}\n{"step": 2}')
  with Tracker(tmp_path, total_steps=9, first_step=5, dataset='digits'):
    assert path.read_bytes() == b'{"step": 1}\n'
  said = f'{path} is damaged: 4 of its lines are left out'
  assert capsys.readouterr().err.splitlines() == [said, COMPILING]
  path.write_bytes(b'{"step": 1}\n{"step": 9}\n{"step"')
  with Tracker(tmp_path, total_steps=9, first_step=5, dataset='digits'):
    assert path.read_bytes() == b'{"step": 1}\n'
  assert capsys.readouterr().err.splitlines() == [COMPILING]


def test_the_rate_leaves_out_compilation_and_pauses(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(tracking.time, 'perf_counter', lambda: now[0])

  def train(run, first, last, seconds):
    for step in range(first, last + 1):
      now[0] += seconds
      run.advance(step)

  with Tracker(tmp_path, total_steps=50, first_step=0, dataset='digits') as run:
    with run.paused():
      now[0] += 1000
    train(run, 1, 1, 60.0)
    run.log(1, {})
    train(run, 2, 11, 0.5)
    run.log(11, {})
    train(run, 12, 16, 0.25)
    with pytest.raises(KeyError), run.paused():
      now[0] += 30
      raise KeyError
    train(run, 17, 21, 0.25)
    run.log(21, {})
  rates = [record.get('steps_per_second') for record in _records(tmp_path)]
  assert rates == [None, 2.0, 4.0]
  assert _scalars(tmp_path, 'steps_per_second') == [(11, 2.0), (21, 4.0)]


def test_plain_lines_are_seconds_apart_and_the_last_is_there(
  tmp_path, monkeypatch, capsys
):
  now = [0.0]
  monkeypatch.setattr(tracking.time, 'perf_counter', lambda: now[0])
  with Tracker(
    tmp_path, total_steps=4000, first_step=0, dataset='digits'
  ) as run:
    for step in range(10, 4001, 10):
      now[0] += 0.125
      run.log(step, {'d_loss': 1.25, 'accuracy': 0.5, 'g_loss': math.nan})
      if step == 1000:
        run.message('[bold]scores')
  out, err = capsys.readouterr()
  lines = err.splitlines()
  assert out == ''
  assert '[bold]scores' in lines
  lines.remove('[bold]scores')
  # The first step, of 0.125 seconds, compiles.
  assert lines[:2] == [COMPILING, 'compiling the training step: 0.1 s']
  del lines[:2]
  assert lines[0] == 'step 10/4000  d_loss 1.25  g_loss nan'
  assert lines[1].startswith(
    'step 410/4000  0:00:45 left  80 steps/s  d_loss 1'
  )
  assert lines[-1].startswith('step 4000/4000  0:00:00 left')
  assert len(lines) == 11


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch):
  leader, follower = pty.openpty()
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '120')
  with open(follower, 'w') as terminal:
    monkeypatch.setattr(sys, 'stderr', terminal)
    with Tracker(
      tmp_path, total_steps=40, first_step=10, dataset='digits'
    ) as run:
      run.advance(11)
      run.log(30, {'g_loss': 0.75})
      run.log(30, {'sigma/up0': 1.5})  # Of a grid, at the same step.
      assert 'g_loss 0.75' in run._bar.tasks[0].fields['status']
      run.message('[bold] new best')
  os.set_blocking(leader, False)
  shown = os.read(leader, 100_000).decode()
  assert '[bold] new best' in shown
  assert '30/40' in shown
  assert 'steps/s  g_loss 0.75' in shown


def test_a_run_that_ends_early_hands_its_bar_over(tmp_path, monkeypatch):
  leader, follower = pty.openpty()
  monkeypatch.setenv('TERM', 'xterm')
  with open(follower, 'w') as terminal:
    monkeypatch.setattr(sys, 'stderr', terminal)
    first, second, third = (
      Tracker(
        tmp_path / name, total_steps=40, first_step=0, dataset='d', shown=shown
      )
      for name, shown in (('a', True), ('b', False), ('c', False))
    )
    with first, second, third:
      for run in (first, second, third):
        run.advance(1)
      third.hand_over(second)  # It has none.
      assert second._bar is None
      first.hand_over(second)
      assert first._bar is None
      second.log(20, {'g_loss': 0.5})
      (task,) = second._bar.tasks
      assert (task.completed, task.fields['status'][-10:]) == (20, 'g_loss 0.5')
  os.close(leader)


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
def test_a_full_disk_is_one_clear_line(tmp_path):
  with (
    open('/dev/full', 'ab', buffering=0) as full,
    pytest.raises(UserError, match='metrics.jsonl cannot be written: No space'),
    Tracker(tmp_path, total_steps=9, first_step=0, dataset='digits') as run,
  ):
    run._writers[0]._file = full
    run.log(1, {'loss': 1.0})


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(UserError, match='file/metrics.jsonl cannot be written: '),
    Tracker(tmp_path / 'file', total_steps=9, first_step=0, dataset='digits'),
  ):
    pass
  (tmp_path / 'tensorboard').write_text('')
  with (
    pytest.raises(UserError, match='tensorboard cannot be written: '),
    Tracker(tmp_path, total_steps=9, first_step=0, dataset='digits'),
  ):
    pass


def test_advance_is_cheap_and_other_processes_are_silent(tmp_path, capsys):
  quiet = Tracker(
    tmp_path, total_steps=9, first_step=0, dataset='digits', primary=False
  )
  with quiet as run, run.paused():
    run.log(1, {'loss': 1.0})
    run.images(1, 'samples', np.zeros((2, 2, 1), np.uint8))
    run.message('x')
    begun = time.perf_counter()
    for step in range(1000):
      run.advance(step)
    assert time.perf_counter() - begun < 0.5
  assert not list(tmp_path.iterdir())
  assert capsys.readouterr() == ('', '')
