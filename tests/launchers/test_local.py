import os

import pytest

from qgan_jax.errors import UserError
from qgan_jax.launchers import local
from qgan_jax.launchers.base import Task

CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def gpus(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5,6,7')


def visible(**options):
  settings = {'parallel': None, 'cpus': 1, 'gpus': None, **options}
  places = local.find_places(**settings)
  return [place.env.get('CUDA_VISIBLE_DEVICES') for place in places]


def test_each_place_has_gpus_of_its_own(gpus):
  assert visible() == visible(gpus=1) == ['2', '5', '6', '7']
  assert visible(gpus=2) == ['2,5', '6,7']
  assert visible(gpus=3) == ['2,5,6']
  assert visible(gpus=0.5) == ['2', '5', '6', '7'] * 2
  assert visible(parallel=2) == ['2', '5']
  assert visible(parallel=6) == ['2', '5', '6', '7', '2', '5']
  with pytest.raises(UserError, match='--gpus=5, but there are 4'):
    visible(gpus=5)
  with pytest.raises(UserError, match='--gpus=0, but there are 4'):
    visible(gpus=0)


def test_places_that_share_a_gpu_share_its_memory(gpus):
  places = local.find_places(parallel=8, cpus=1, gpus=1)
  fractions = {place.env['XLA_PYTHON_CLIENT_MEM_FRACTION'] for place in places}
  assert fractions == {'0.450'}
  alone = local.find_places(parallel=4, cpus=1, gpus=1)
  assert all(place.env.keys() == {'CUDA_VISIBLE_DEVICES'} for place in alone)


def test_gpus_are_counted_where_nothing_is_said(monkeypatch, tmp_path):
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  smi = tmp_path / 'nvidia-smi'
  smi.write_text(f'#!/bin/sh\necho asked >> {tmp_path}/log\nprintf "0\\n1\\n"')
  smi.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
  assert visible() == ['0', '1']
  assert local.has_accelerators()
  assert (tmp_path / 'log').read_text() == 'asked\n'  # Once for all trials.
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert visible() == [None] * len(CORES)
  with pytest.raises(UserError, match='--gpus=1, but there are none'):
    visible(gpus=1)


def test_tpu_chips_are_not_shared(monkeypatch):
  monkeypatch.setattr(local, '_gpus', lambda: [])
  monkeypatch.setattr(local, '_tpu_chips', lambda: list('0123'))
  places = local.find_places(parallel=None, cpus=1, gpus=None)
  assert [p.env['TPU_VISIBLE_CHIPS'] for p in places] == list('0123')
  with pytest.raises(UserError, match='4 TPU chips'):
    local.find_places(parallel=5, cpus=1, gpus=None)


def test_each_place_has_cores_of_its_own(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setattr(local, '_cores', lambda: [0, 1, 2, 5, 6])

  def cores(**options):
    settings = {'parallel': None, 'cpus': 1, 'gpus': None, **options}
    return [sorted(p.cores) for p in local.find_places(**settings)]

  assert cores() == [[0], [1], [2], [5], [6]]
  assert cores(cpus=2) == [[0, 1], [2, 5]]
  assert cores(cpus=5) == [[0, 1, 2, 5, 6]]
  assert cores(cpus=2, parallel=3) == [[0, 1], [2, 5], [0, 1]]
  with pytest.raises(UserError, match='--cpus=6, but there are 5'):
    cores(cpus=6)


def test_a_process_is_bound_to_its_place(tmp_path):
  code = (
    'import os, sys; '
    'print(sorted(os.sched_getaffinity(0)), os.environ["WHO"], sys.argv)'
  )
  task = Task(
    'a', ('python', '-c', code, 'x y'), tmp_path, tmp_path / 'log',
    tmp_path / 'lock', {'WHO': 'task'},
  )  # fmt: skip
  place = local.Place({'WHO': 'place'}, frozenset(CORES[-1:]))
  launcher = local.LocalLauncher([place])
  job = launcher.submit(task)
  while job.poll() is None:
    pass
  head, said = (tmp_path / 'log').read_text().splitlines()
  assert head.endswith(f"python -c '{code}' 'x y'")
  assert said == f"{CORES[-1:]} place ['-c', 'x y']"
