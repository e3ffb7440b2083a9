"""Every script in examples/ runs, and does what it says."""

from pathlib import Path
import re
import runpy
import sys

import example_generator
import numpy as np
from PIL import Image
import pytest

from qgan_jax import artifacts
from qgan_jax.artifacts.formats import export

EXAMPLES = Path(__file__).parents[1] / 'examples'


@pytest.fixture
def run(monkeypatch, capsys):
  """Runs a script with arguments: what it defines, and what it prints."""

  def start(name, *arguments):
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    found = runpy.run_path(str(EXAMPLES / name), run_name='__main__')
    return found, capsys.readouterr().out

  return start


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
  path = tmp_path_factory.mktemp('run') / 'generator.qgan'
  network, _, _ = example_generator.make_generator(num_classes=3, channels=8)
  artifacts.save(path, network)
  return path


def test_each_is_short_and_has_its_test():
  names = {path.name for path in EXAMPLES.glob('*.py')}
  source = Path(__file__).read_text()
  assert names and all(f"'{name}'" in source for name in names)
  for name in names:
    assert len((EXAMPLES / name).read_text().splitlines()) < 80, name


def test_post_training(run, tmp_path):
  _, out = run('post_training.py', tmp_path)
  errors = [float(x) for x in re.findall(r'bits: ([\d.]+)%', out)]
  assert len(errors) == 2 and 0 < errors[0] < 5 < errors[1] < 100
  assert re.search(r'mix +weights +8 +lsq per channel', out)
  assert 'draws the same' in out
  assert len(list(tmp_path.glob('*.qgan'))) == 3


def test_training_loop(run, tmp_path):
  found, out = run('training_loop.py', 3, tmp_path / 'g.qgan')
  assert re.search(r'layers_2 +activations +4 +lsq_plus', out)
  network = artifacts.load(tmp_path / 'g.qgan', found['G'])
  images = np.asarray(network(np.ones((2, 16), np.float32)))
  assert images.shape == (2, 64) and np.abs(images).max() <= 1
  # Its steps are of the networks that are quantized: weights and scales move.
  g, _ = found['init'](found['G'], found['jax'].random.key(1), np.ones((4, 16)))
  moved = network.learned['weights']['layers_0']['scale']
  assert np.any(moved != g['learned']['weights']['layers_0']['scale'])


def test_draw(run, artifact, tmp_path):
  _, out = run('draw.py', artifact, tmp_path / 'x.png')
  assert '64 images of (28, 28, 1)' in out
  assert np.asarray(Image.open(tmp_path / 'x.png')).std() > 5


def test_onnx_plain(run, artifact, tmp_path):
  pytest.importorskip('onnxruntime')
  pytest.importorskip('onnx')
  path, *_ = [
    path
    for path in export(artifact, ['onnx'], tmp_path)
    if 'onnxruntime' in path.name
  ]
  _, out = run('onnx_plain.py', path, tmp_path / 'x.png')
  assert 'weights 8-bit uniform' in out and '64 images of (28, 28, 1)' in out
  assert Image.open(tmp_path / 'x.png').size == (8 * 28, 8 * 28)
  source = (EXAMPLES / 'onnx_plain.py').read_text()
  imports = re.findall(r'^(?:import|from) (\w+)', source, re.M)
  assert not {'jax', 'flax', 'qgan_jax'} & set(imports)
