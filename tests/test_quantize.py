"""The command on a run, in processes of their own."""

import json
import types

from command_line import finish
import numpy as np
import pytest

from qgan_jax import artifacts
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.runs import after_training

STRING = (
  'bits=32,channels=8,batch_size=8,steps=8,log_every=4,sample_every=8,'
  'eval_every=8,checkpoint_every=8,logging.eval_samples=64,scores.samples=64'
)


@pytest.fixture(scope='module')
def trained(commands, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'float'
  config = f'--config=experiments/digits.py:{STRING}'
  finish(commands('main', config, f'--workdir={workdir}'))
  return workdir


@pytest.mark.parametrize(
  ('arguments', 'name'),
  [
    (['--bits=8', '--method=nearest'], 'nearest,uniform,w_bits=8,a_bits=8'),
    pytest.param(
      ['--w_bits=2', '--method=adaround', '--rounding_steps=5'],
      'adaround,lsq,w_bits=2,a_bits=8,rounding_steps=5',
      marks=pytest.mark.slow,
    ),
    (
      ['--size=14000', '--samples=128'],
      'mse,lsq,size=14000,a_bits=8,samples=128',
    ),
    pytest.param(
      ['--max_ratio=2', '--samples=128'],
      'mse,lsq,max_ratio=2,a_bits=8,samples=128',
      marks=pytest.mark.slow,
    ),
  ],
)
def test_a_quantized_run(commands, trained, arguments, name):
  before = sorted(p.name for p in trained.rglob('*'))
  out, _ = finish(commands('quantize', '--workdir=.', *arguments, cwd=trained))
  assert sorted(p.name for p in trained.rglob('*')) == before
  folder = trained.with_name(f'float+{name}')
  assert "to the run's generator" in out
  scores = json.loads((folder / 'scores.json').read_text())
  assert scores['best']['num_fake'] == 64
  assert (folder / 'samples/step_0000008.png').exists()
  generator = artifacts.load(folder / 'generator.qgan')
  rows = json.loads((folder / 'precision.json').read_text())
  assert {'project', 'up0'} <= {row['layer'] for row in rows}
  if 'size' in name:
    assert (folder / 'generator.qgan').stat().st_size <= 14000
    assert isinstance(generator.bits.weights, dict)
    assert 'generator/up0' in out
  # The folder is one like any other: scored again, it scores the same.
  again, _ = finish(commands('evaluate', f'--workdir={folder}'))
  assert json.loads(again)['frechet_distance'] == pytest.approx(
    scores['best']['frechet_distance'], rel=1e-4
  )


def test_eight_bits_become_integer_files_that_draw(commands, trained, tmp_path):
  """As the README goes on: quantize, export, sample."""
  folder = tmp_path / 'quantized'
  finish(
    commands('quantize', f'--workdir={trained}', '--bits=8', f'--out={folder}')
  )
  generator = artifacts.load(folder / 'generator.qgan')
  layers = make_plan(generator, integer=True).layers
  # The least code of LSQ has no opposite.
  assert min(layer.codes.codes.min() for layer in layers) == -128
  finish(commands('export', f'--workdir={folder}', '--format=onnx'))
  drawn = {}
  for path in [folder / 'generator.qgan', *sorted(folder.glob('*.onnx'))]:
    finish(commands('sample', f'--artifact={path}', f'--out={tmp_path}/x.npz'))
    with np.load(tmp_path / 'x.npz') as file:
      drawn[path.name] = file['images'].astype(int)
  expected = drawn.pop('generator.qgan')
  assert expected.std() > 5
  assert len(drawn) == 2
  for name, images in drawn.items():
    assert (np.abs(images - expected) <= 1).mean() > 0.999, name


def test_statistics_of_normalization_count_for_a_size():
  def mean_bits(statistics):
    layers = {'conv': {'kernel': np.zeros((100, 100)), 'bias': np.zeros(100)}}
    network = types.SimpleNamespace(params=layers, stats=statistics)
    run = types.SimpleNamespace(
      state=types.SimpleNamespace(averaged=lambda name: network),
      sampler=types.SimpleNamespace(name='generator'),
    )
    return after_training._mean_bits_for_size(run, 12_000)

  stats = {'batch_stats': {'norm': {'mean': np.zeros(500)}}}
  # 2,000 bytes less for 10,000 weights.
  assert mean_bits({}) - mean_bits(stats) == pytest.approx(1.6)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'say how many bits'),
    (['--bits=4', '--size=9000'], 'say how many bits'),
    (['--bits=77'], 'bits'),
    (['--size=5'], 'at least'),
    (['--size=9000', '--quantizer=grid'], 'grid has an exponent'),
    (['--bits=4', '--dynamic', '--calibration=kl'], 'leave it out'),
    (['--bits=4', '--rounding_steps=9'], 'is for --method=adaround'),
    (['--bits=4', '--method=adaround', '--quantizer=ternary'], 'adaround'),
    (['--bits=4', '--workdir=/nowhere'], 'not the folder of a run'),
  ],
)
def test_what_is_refused(commands, trained, arguments, message):
  process = commands('quantize', f'--workdir={trained}', *arguments)
  _, err = finish(process, code=2)
  assert message in err
