"""Trials that share one program, by the command, against the same alone."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from command_line import finish, ROOT, XLA_FLAGS
import numpy as np
import pytest

STRING = (
  'channels=8,batch_size=8,optimizer=momentum,penalty_weight=1,norm=group,'
  'steps=24,log_every=4,sample_every=12,eval_every=12,checkpoint_every=4,'
  'logging.eval_samples=64,scores.samples=64,loss.penalty_fraction=0.5'
)
# With more, members' last digits differ from those of a run on one device.
ONE_DEVICE = f'{XLA_FLAGS} --xla_force_host_platform_device_count=1'
ARGS = {
  'two': 'bits=2,learning_rate=0.01',
  'mixed': 'w_bits=8,a_bits=4,learning_rate=0.003,seed=1,penalty_weight=0.5',
  'float': 'bits=32,learning_rate=0.01,ema=0.9',
}


def arguments(name):
  # A key given twice is refused, so that the trial's own comes last.
  own = ARGS[name]
  rest = [
    pair for pair in STRING.split(',') if pair.partition('=')[0] not in own
  ]
  return [f'--config=experiments/digits.py:{own},{",".join(rest)}']


def write_trials(folder, names=tuple(ARGS)):
  path = folder / 'trials.json'
  path.write_text(
    json.dumps(
      [{'workdir': str(folder / n), 'args': arguments(n)} for n in names]
    )
  )
  return path


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  for row in found:
    row.pop('steps_per_second', None)
  return found


def assert_same_losses(mine, other):
  for a, b in zip(rows(mine), rows(other), strict=True):
    assert a.keys() == b.keys()
    # Last digits that differ grow with the steps, to 2e-4 on some processors.
    assert np.isclose(a.get('d_loss', 0), b.get('d_loss', 0), 1e-3)


@pytest.fixture(scope='module')
def together(commands, tmp_path_factory):
  """The folder of three trials that trained in one program."""
  folder = tmp_path_factory.mktemp('together')
  path = write_trials(folder)
  _, err = finish(
    commands('population', f'--trials={path}', XLA_FLAGS=ONE_DEVICE)
  )
  assert 'program 1 of 1: 3 trials' in err
  return folder


@pytest.mark.parametrize(
  'name', ['two', 'float', pytest.param('mixed', marks=pytest.mark.slow)]
)
def test_a_trial_ends_as_it_would_alone(commands, together, tmp_path, name):
  workdir = tmp_path / name
  finish(commands('main', *arguments(name), f'--workdir={workdir}'))
  left = sorted(p.relative_to(workdir) for p in workdir.rglob('*.png'))
  for file in [*left, Path('generator.qgan'), Path('scores.json')]:
    assert (together / name / file).exists()
  if name == 'float':
    # Its program has the others' quantizers in it, so the last digits differ.
    assert_same_losses(together / name, workdir)
    return
  assert rows(together / name) == rows(workdir)
  for file in (*left, 'generator.qgan'):
    mine, alone = ((f / file).read_bytes() for f in (together / name, workdir))
    assert mine == alone, file
  mine, alone = (
    json.loads((f / 'scores.json').read_text())
    for f in (together / name, workdir)
  )
  assert mine == alone


@pytest.mark.slow
def test_members_spread_over_the_cores(commands, together, tmp_path):
  cores = len(os.sched_getaffinity(0))
  assert cores > 1, 'nothing to spread over'
  finish(commands('population', f'--trials={write_trials(tmp_path)}'))
  for name in ARGS:
    record = json.loads((tmp_path / name / 'config.json').read_text())
    assert record['devices'] == ['cpu'] * min(cores, len(ARGS))
    assert_same_losses(tmp_path / name, together / name)


def test_stopped_in_the_middle_it_goes_on(commands, together, tmp_path):
  path = write_trials(tmp_path)
  process = commands('population', f'--trials={path}', XLA_FLAGS=ONE_DEVICE)
  deadline = time.monotonic() + 200
  while not list(tmp_path.glob('float/checkpoints/8')):
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  # One of them has lost its newest checkpoint: all go back to what all have.
  newest = max((tmp_path / 'two/checkpoints').glob('[0-9]*'))
  for file in newest.rglob('*'):
    if file.is_file():
      os.truncate(file, 0)
  finish(commands('population', f'--trials={path}', XLA_FLAGS=ONE_DEVICE))
  for name in ARGS:
    assert rows(tmp_path / name) == rows(together / name)


def test_finished_trials_are_left_alone(commands, together):
  path = write_trials(together)
  before = (together / 'two/scores.json').stat().st_mtime_ns
  _, err = finish(commands('population', f'--trials={path}'))
  assert 'program' not in err
  assert (together / 'two/scores.json').stat().st_mtime_ns == before


def test_every_layout_on_eight_devices(tmp_path):
  """Groups of devices, one each, several in turn or side by side."""
  script = Path(__file__).parent / 'training/tiny_population.py'
  flags = f'{XLA_FLAGS} --xla_force_host_platform_device_count=8'
  out = tmp_path / 'states.npz'
  subprocess.run(
    [sys.executable, script, out],
    env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)},
    check=True,
    timeout=300,
  )
  results = dict(np.load(out))
  alone = {k: v for k, v in results.items() if k.startswith('alone/')}
  assert alone
  layouts = {k.split('/')[0] for k in results} - {'alone'}
  assert layouts == {'3', '8', '11 in turn', '11 side by side'}
  for key, value in alone.items():
    for layout in layouts:
      other = results[key.replace('alone', layout, 1)]
      np.testing.assert_allclose(
        np.float64(value), np.float64(other), rtol=1e-4, atol=2e-6,
        err_msg=f'{layout}: {key}',
      )  # fmt: skip
