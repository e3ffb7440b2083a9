"""A run's folder, and a sweep's: the same as before, or refused."""

import json

import numpy as np
import pytest

from qgan_jax import config as config_lib
from qgan_jax.config.flags import Experiment
from qgan_jax.config.keys import REMOVED
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.runs import build, plan
from qgan_jax.runs.folder import identity, open_folder, read_run
from qgan_jax.runs.pictures import check as check_pictures


def make_config(arg):
  config = config_lib.override(config_lib.base(experiment='digits'), arg)
  return config_lib.resolve(config)


def data_of(name, pictures=(), classes=()):
  images = np.zeros((2, 16, 16, 1), np.uint8)
  return ImageDataset(
    name, images, None, images, None, 0, classes, pictures=tuple(pictures)
  )


DIGITS = data_of('digits')


def open_run(folder, arg, dataset=DIGITS):
  experiment = Experiment(make_config(arg), 'digits.py', arg, {})
  open_folder(folder, experiment, dataset, primary=True)


def open_sweep(folder, arg):
  record = json.loads(config_lib.to_json(make_config(arg)))
  trials = [plan.PlannedTrial('seed=1', ('--config=digits.py',), record)]
  plan.open_folder(plan.Sweep(folder, trials, {}), {}, ['python'])


def rewrite(path, change):
  record = json.loads(path.read_text())
  change(record)
  path.write_text(json.dumps(record))


def as_before(config):
  """What an earlier version wrote: other keys than today."""
  del config['logging']['diagnose_every']
  del config['precision']['anneal_steps']
  for key, default in REMOVED.items():
    group, name = key.split('.')
    config[group][name] = default


@pytest.mark.parametrize(
  ('open_it', 'name', 'config_of'),
  [
    (open_run, 'config.json', lambda record: record['config']),
    (open_sweep, 'sweep.json', lambda record: record['trials'][0]['config']),
  ],
  ids=['run', 'sweep'],
)
def test_other_keys_than_an_earlier_version_s_do_not_matter_at_their_defaults(
  tmp_path, open_it, name, config_of
):
  open_it(tmp_path, 'bits=4')
  rewrite(tmp_path / name, lambda record: as_before(config_of(record)))
  open_it(tmp_path, 'bits=4')
  with pytest.raises(UserError) as caught:
    open_it(tmp_path, 'bits=4,anneal_steps=5,ema=0.9')
  differs = str(caught.value).split('What differs:')[1]
  assert differs.count('->') == 2
  assert 'precision.anneal_steps: 0 -> 5' in differs
  assert 'ema.decay: 0.999 -> 0.9' in differs


def test_a_sweep_of_an_earlier_version_goes_on(tmp_path):
  open_sweep(tmp_path, 'bits=4')
  path = tmp_path / 'sweep.json'
  rewrite(path, lambda r: as_before(r['trials'][0]['config']))
  (trial,) = plan.read(tmp_path).trials
  assert trial.config == json.loads(config_lib.to_json(make_config('bits=4')))


def test_every_trial_of_a_sweep_has_a_folder_of_its_own(tmp_path):
  file = tmp_path / 'own.py'
  file.write_text(
    'from qgan_jax.config import base, override\n'
    'def get_config(arg=None):\n'
    "  return override(base(experiment='digits'), arg)\n"
    'def sweep(add):\n'
    "  add('')\n"
    "  add('bits=4')\n"
  )
  sweep = plan.plan(str(file), '', {}, own=None, workdir=None)
  assert [trial.name for trial in sweep.trials] == ['defaults', 'bits=4']


def test_the_config_of_an_earlier_run_is_complete(tmp_path):
  open_run(tmp_path, 'bits=4')
  rewrite(tmp_path / 'config.json', lambda record: as_before(record['config']))
  assert read_run(tmp_path) == (make_config('bits=4'), 'digits')
  path = tmp_path / 'config.json'
  rewrite(path, lambda r: r['config']['precision'].update(pruning='global'))
  with pytest.raises(UserError, match='precision.pruning=.global. cannot be'):
    read_run(tmp_path)


def test_data_may_move(tmp_path, capsys):
  open_run(tmp_path, 'data.dir=/a')
  open_run(tmp_path, 'data.dir=/b')
  assert 'data.dir=/b' in capsys.readouterr().err
  assert read_run(tmp_path)[0].data.dir == '/b'
  experiment = Experiment(make_config('data.dir=/b'), 'digits.py', '', {})
  with pytest.raises(UserError, match='dataset: digits -> other'):
    open_folder(tmp_path, experiment, data_of('other'), primary=True)
  open_sweep(tmp_path, 'data.dir=/a')
  open_sweep(tmp_path, 'data.dir=/b')


def test_a_relative_place_of_data_is_found_from_elsewhere(
  tmp_path, monkeypatch, capsys
):
  arg, dataset = 'source=folder,dir=photos', data_of('pictures-1', ['a'])
  run, start, other = (tmp_path / x for x in ('run', 'start', 'other'))
  for folder in (run, start / 'photos', other):
    folder.mkdir(parents=True)
  monkeypatch.chdir(start)
  open_run(run, arg, dataset)
  assert read_run(run)[0].data.dir == 'photos'
  monkeypatch.chdir(other)
  found = read_run(run)[0].data
  assert found.dir == f'{start}/photos'
  assert found.source == f'folder:{start}/photos'
  # A place that is nowhere stays as it was said; one that is here is taken.
  (start / 'photos').rename(other / 'photos')
  monkeypatch.chdir(start)
  assert read_run(run)[0].data.dir == 'photos'
  monkeypatch.chdir(other)
  assert read_run(run)[0].data.source == 'folder:photos'
  # Going on here is noted, once.
  for _ in range(2):
    open_run(run, arg, dataset)
  assert capsys.readouterr().err.count('is taken from data.dir=photos now') == 1
  monkeypatch.chdir(start)
  assert read_run(run)[0].data.dir == f'{other}/photos'


def test_relative_weights_are_found_from_elsewhere(tmp_path, monkeypatch):
  arg = 'extractor=inception,scores.inception_weights=weights.pth'
  start, other = tmp_path / 'start', tmp_path / 'other'
  start.mkdir()
  other.mkdir()
  (start / 'weights.pth').touch()
  monkeypatch.chdir(start)
  open_run(tmp_path, arg)
  assert read_run(tmp_path)[0].scores.inception_weights == 'weights.pth'
  monkeypatch.chdir(other)
  found = read_run(tmp_path)[0].scores.inception_weights
  assert found == f'{start}/weights.pth'
  (start / 'weights.pth').unlink()
  assert read_run(tmp_path)[0].scores.inception_weights == 'weights.pth'


def test_pictures_that_are_gone_are_said_with_their_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'run').mkdir()
  open_run(tmp_path / 'run', 'source=folder,dir=gone', data_of('pictures-1'))
  with pytest.raises(UserError) as caught:
    build.load_learned(tmp_path / 'run')
  said = str(caught.value)
  assert f"There is no image folder 'gone' in {tmp_path}" in said
  assert (
    f'with its new place as dir=… and with --workdir={tmp_path}/run' in said
  )


def test_names_of_classes_are_recorded(tmp_path):
  open_run(tmp_path, '', data_of('pictures-1', classes=('ant', 'bee')))
  record = json.loads((tmp_path / 'config.json').read_text())
  assert record['class_names'] == ['ant', 'bee']
  open_run(tmp_path, '', data_of('pictures-1'))


def test_pictures_may_move(tmp_path, capsys):
  dataset = data_of('pictures-1', ['a', 'b', 'b'])
  open_run(tmp_path, 'source=folder,dir=/a', dataset)
  open_run(tmp_path, 'source=folder,dir=/b.zip', dataset)
  assert (
    'pictures-1 is taken from data.dir=/b.zip now' in capsys.readouterr().err
  )
  assert read_run(tmp_path)[0].data.source == 'folder:/b.zip'
  with pytest.raises(UserError, match='data.source: .folder. -> .digits.'):
    open_run(tmp_path, 'source=digits', dataset)


@pytest.mark.parametrize(
  ('pictures', 'says'),
  [
    (['a', 'b', 'b', 'c', 'd'], r'2 picture\(s\) added, 0 removed'),
    (['a', 'b', 'c'], r'1 picture\(s\) added, 1 removed'),
    (['a', 'b', 'b'], 'the same pictures, in other classes'),
    ([], 'dataset: pictures-1 -> pictures-2'),
  ],
)
def test_what_changed_in_the_pictures_is_said(tmp_path, pictures, says):
  arg = 'source=folder,dir=/a'
  open_run(tmp_path, arg, data_of('pictures-1', ['a', 'b', 'b']))
  changed = data_of('pictures-2', pictures)
  with pytest.raises(UserError, match=says):
    open_run(tmp_path, arg, changed)
  with pytest.raises(UserError, match=says):
    check_pictures(tmp_path, 'pictures-1', changed)


def test_runs_that_split_by_number_are_refused(tmp_path):
  arg = 'source=folder,dir=/a'
  open_run(tmp_path, arg, data_of('folder:a-12345678'))
  with pytest.raises(UserError, match='held-out pictures by their number'):
    open_run(tmp_path, arg, data_of('pictures-1', ['a']))


def test_checkpoints_are_of_the_run(tmp_path):
  """As `config.json`: other values are refused, new keys at defaults not."""
  config = make_config('bits=4,data.dir=/b')
  experiment = Experiment(config, 'digits.py', '', {})
  said = identity(make_config('bits=4,data.dir=/a'), 'digits')
  as_before(said['config'])
  path = tmp_path / 'checkpoints' / '7'

  def open_it():
    saved = [(path, said)]
    open_folder(tmp_path, experiment, DIGITS, saved=saved, primary=True)

  said['config']['generator']['learning_rate'] = 0.25
  with pytest.raises(UserError, match=f'another config, says {path};') as error:
    open_it()
  assert 'generator.learning_rate: 0.25 -> ' in str(error.value)
  assert not (tmp_path / 'config.json').exists()
  said['config']['generator']['learning_rate'] = config.generator.learning_rate
  open_it()
  assert read_run(tmp_path) == (config, 'digits')
