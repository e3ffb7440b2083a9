"""What a run delivers says, and its summary of it."""

import collections
import json
import os
from pathlib import Path
import shlex
import types

import flax.linen as nn
import jax
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

import qgan_jax
from qgan_jax import config as config_lib
from qgan_jax import post_training
from qgan_jax.artifacts import container, formats
from qgan_jax.models.dcgan import Generator
from qgan_jax.runs import build, deliver
from qgan_jax.runs.deliver import how_to_draw


class Own(nn.Module):
  features: int = 3


class WithFunction(nn.Module):
  activation: object = nn.relu


class Local:
  class Inner(nn.Module):
    pass


def local():
  class Here(nn.Module):
    pass

  return Here()


@pytest.mark.parametrize(
  ('module', 'said'),
  [
    (Generator(), 'python -m qgan_jax.sample --artifact=a/g.qgan --num=64'),
    (Own(), f'qgan_jax.sample --module={__name__} --artifact=a/g.qgan'),
    (Local.Inner(), f'qgan_jax.sample --module={__name__} --artifact='),
    # A class or an attribute that a command cannot make again.
    (local(), "qgan_jax.load('a/g.qgan', module=…)"),
    (WithFunction(nn.gelu), "qgan_jax.load('a/g.qgan', module=…)"),
  ],
)
def test_how_to_draw_from_it(module, said):
  line = how_to_draw(module, Path('a/g.qgan'))
  assert said in line
  assert line.startswith('\n  draw from it: ')


def test_how_to_draw_can_be_pasted_into_a_shell():
  path = Path("my run's, 1/g.qgan")
  line = how_to_draw(Generator(), path)
  assert f'--artifact={path}' in shlex.split(line)


class Drawer(nn.Module):
  @nn.compact
  def __call__(self, z):
    return nn.tanh(nn.Dense(16)(z)).reshape(-1, 4, 4, 1)


class AnyScores(collections.defaultdict):
  """What a summary is made from."""

  def __init__(self):
    super().__init__(int, {'step': 0, 'caveats': ['of ten images']})
    self['extractor'] = {'name': 'none', 'hash': ''}


def test_what_is_given_away_says_of_no_place(tmp_path, monkeypatch):
  """Names and a digest tell what was learned; paths tell of the machine."""
  pictures = tmp_path / 'photos'
  pictures.mkdir()
  for i in range(3):
    Image.new('L', (16, 16), 80 * i).save(pictures / f'{i}.png')
  config = config_lib.resolve(
    config_lib.base(
      experiment='images',
      source='folder',
      dir=str(pictures),
      init_from=str(tmp_path / 'earlier'),
      image_size=16,
      bits=8,
    )
  )
  z = np.ones((4, 3), np.float32)
  network = post_training.quantize(
    (Drawer(), Drawer().init(jax.random.key(0), z)), bit_width=8, calibrate=z
  )
  setup = types.SimpleNamespace(
    config=config,
    labels=None,
    dataset=build.load_dataset(config, standin=False),
    sampler=lambda: types.SimpleNamespace(quantized=lambda state: network),
    variant=types.SimpleNamespace(delivered='generator'),
  )
  state = types.SimpleNamespace(step=0)
  monkeypatch.setattr(deliver, 'score_state', lambda *_, **__: AnyScores())
  _, summary = deliver.deliver(
    tmp_path, setup, best=state, last=state, extractor=None
  )
  assert summary.count('note: of ten images') == 2

  artifact = tmp_path / 'generator.qgan'
  header, _ = container.split(safetensors.numpy.load_file(artifact)['qgan'])
  about = header['metadata']
  assert about['dataset'].startswith('pictures-')
  assert 'init_from=earlier,source=folder:photos,dir=photos' in about['config']
  contents = {artifact.name: json.dumps(header).encode()}
  runtime = tmp_path / 'dist'
  runtime.mkdir()
  for name in 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm':
    (runtime / name).touch()
  names = [name for name in formats.FORMATS if name != 'packed']
  files = formats.export(artifact, names, tmp_path / 'out', ort_web=runtime)
  contents |= {path.name: path.read_bytes() for path in files}
  assert len(contents) == 10
  # Of the network's class, of the package and of JAX: it notes in programs
  # where functions stand.
  code = [Path(path).resolve().parents[1] for path in (__file__, jax.__file__)]
  for name, content in contents.items():
    assert b'photos' in content
    for place in tmp_path, Path(qgan_jax.__file__).parents[1], *code:
      assert os.fsencode(place) not in content, f'{name} says {place}'
