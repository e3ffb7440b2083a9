"""One device, eight devices and two processes make the same run."""

import os
from pathlib import Path
import re
import socket
import subprocess
import sys

from command_line import XLA_FLAGS
import numpy as np
import pytest
import tiny_run

HERE = Path(__file__).parent
LONG = ('pix2pix', 'cyclegan')  # To compile.


def start(out, num_devices, variants, *distributed):
  flags = f'{XLA_FLAGS} --xla_force_host_platform_device_count={num_devices}'
  return subprocess.Popen(
    [sys.executable, HERE / 'tiny_run.py', out, variants, *distributed],
    env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(HERE.parents[1])},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(processes):
  try:
    for process in processes:
      _, stderr = process.communicate(timeout=900)
      assert process.returncode == 0, stderr
  finally:
    for process in processes:
      process.kill()


def run_alone(folder, names):
  """Runs variants on one device, and on eight."""
  finish(
    [
      start(folder / f'{layout}.npz', num_devices, ','.join(names))
      for layout, num_devices in (('one', 1), ('eight', 8))
    ]
  )


def results(folder):
  """By layout, arrays by variant and path in the state; devices of each."""
  found = {path.stem: dict(np.load(path)) for path in sorted(folder.iterdir())}
  return found, {name: int(run.pop('devices')) for name, run in found.items()}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """The results by layout, of all variants but `LONG`."""
  folder = tmp_path_factory.mktemp('devices')
  with socket.create_server(('localhost', 0)) as server:
    address = f'localhost:{server.getsockname()[1]}'
  run_alone(folder, [name for name in tiny_run.VARIANTS if name not in LONG])
  pair = [
    start(folder / f'process{i}.npz', 2, 'batch', address, '2', str(i))
    for i in (0, 1)
  ]
  finish(pair)
  found, counts = results(folder)
  assert counts == {'one': 1, 'eight': 8, 'process0': 4, 'process1': 4}
  return found


def part(run, prefix):
  return {k.removeprefix(prefix): v for k, v in run.items()
          if k.startswith(prefix)}  # fmt: skip


def update(run, variant):
  """What the steps have changed, as one vector for each network."""
  before = part(run, f'{variant}/before/')
  after = part(run, f'{variant}/after/')
  names = {k.split('/')[1] for k in after if k.startswith('networks/')}
  assert len(names) == (4 if variant == 'cyclegan' else 2)
  return {
    name: np.concatenate(
      [
        (after[k] - before[k]).ravel()
        for k in sorted(after)
        if k.startswith(f'networks/{name}/params/')
      ]
    )
    for name in names
  }


@pytest.mark.parametrize(
  ('layout', 'variant'),
  [
    ('eight', 'batch'),
    ('eight', 'group'),
    ('eight', 'learned'),
    ('eight', 'vae'),
    ('process0', 'batch'),
  ],
)
def test_the_layout_does_not_change_the_run(runs, layout, variant):
  one, many = runs['one'], runs[layout]
  # 4e-6 is seen; noise may once move a rounded activation by a level.
  expected, got = update(one, variant), update(many, variant)
  for name, vector in expected.items():
    norm = np.linalg.norm(vector)
    assert norm > 1e-3
    assert np.linalg.norm(got[name] - vector) < 1e-3 * norm, name
  expected, got = (part(run, f'{variant}/metrics/') for run in (one, many))
  assert expected.keys() == got.keys()
  assert len(expected) > 15
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol=1e-3, atol=1e-6)
  expected, got = (part(run, f'{variant}/after/') for run in (one, many))
  moving = [k for k in expected if re.search('/(ranges|stats|learned)/', k)]
  assert len(moving) >= 6
  for name in moving:
    scale = np.abs(expected[name]).max()
    np.testing.assert_allclose(
      got[name], expected[name], rtol=0, atol=1e-4 * scale, err_msg=name
    )


@pytest.mark.slow
@pytest.mark.parametrize('variant', LONG)
def test_nor_one_from_images_to_images(tmp_path, variant):
  run_alone(tmp_path, [variant])
  found, _ = results(tmp_path)
  test_the_layout_does_not_change_the_run(found, 'eight', variant)


def test_the_layout_does_not_change_what_is_adapted(runs):
  """ADA's probability: the sums behind it are of whole numbers."""
  one, eight = (
    part(runs[layout], 'group/after/adapted/') for layout in ('one', 'eight')
  )
  assert one['augment_p'] != 0.5
  assert one == eight


def test_both_processes_hold_the_same_state(runs):
  first, second = runs['process0'], runs['process1']
  assert first.keys() == second.keys()
  for name, value in first.items():
    np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_a_signal_to_one_process_stops_both_at_the_same_step(runs):
  # It comes after step 6; they agree where they log, every sixth step.
  assert runs['process0']['stopped'] == runs['process1']['stopped'] == 12
