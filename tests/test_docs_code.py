"""The tutorials run as they stand, but for how long they train."""

import importlib
from pathlib import Path
import re
import shlex
import sys
import zipfile

from command_line import finish
import numpy as np
from PIL import Image
import pytest

from qgan_jax.metrics import classifier
from qgan_jax.runs import own

DOCS = Path(__file__).parents[1] / 'docs'
PAGE = DOCS / 'own_model.md'
BLOCK = re.compile(
  r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE
)
# Of a run of few steps, which learns nothing.
SHORT = {
  'steps': 4,
  'batch_size': 8,
  'logging.log_every': 4,
  'logging.eval_samples': 32,
  'scores.samples': 32,
}
# What is told, and not done: minutes of training each.
TOLD = {'main', 'evaluate', 'sweep'}


def test_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
  pytest.importorskip('onnxruntime')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(classifier, '_STEPS', 4)
  train = own.train
  monkeypatch.setattr(own, 'train', lambda *a, **k: train(*a, **(k | SHORT)))
  names, done = {}, []
  try:
    for language, title, code in BLOCK.findall(PAGE.read_text()):
      if title:
        (tmp_path / title).write_text(code)
      elif language == 'python':
        # 180 pictures learn as little as all of them in so few steps.
        exec(compile(code, str(PAGE), 'exec'), names)
        names['images'] = names['images'][:180]
      elif language == 'bash':
        for line in code.splitlines():
          _, _, module, *flags = shlex.split(line)
          done.append(module.removeprefix('qgan_jax.'))
          if done[-1] not in TOLD:
            importlib.import_module(module).main(flags)
      elif language == 'text':
        assert code in capsys.readouterr().out
  finally:
    sys.modules.pop('my_networks', None)
  assert {*done} == TOLD | {'export'}
  # What the comments of the page say.
  assert names['drawn'].shape == (64, 8, 8, 1)
  assert abs(names['same'] - names['drawn']).max() < 8 * 2 / 255
  assert names['run'].scores['sizes']['ratio'] > 2
  assert (tmp_path / 'grid.png').exists() and names['sizes'].ratio > 2


@pytest.mark.slow
def test_the_first_hour_runs_from_top_to_bottom(tmp_path, commands):
  pytest.importorskip('onnxruntime')
  photos = zipfile.ZipFile(tmp_path / 'photos.zip', 'w')
  with photos:
    for i in range(200):
      pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
      with photos.open(f'{i}.png', 'w') as file:
        Image.fromarray(pixels).resize((40, 40)).save(file, 'PNG')
  smaller = ['--config.channels=8', '--config.data.image_size=16']
  lines = lines_of(DOCS / 'first_hour.md')
  # And the one in the text, that quantizes a run which is there.
  lines += ['python -m qgan_jax.quantize --workdir=runs/images/… --bits=8']
  # npm has to fetch what a page runs in.
  lines = [line.replace('onnx,web', 'onnx') for line in lines]
  done, printed = follow(lines, commands, tmp_path, smaller)
  assert done == [
    'main', 'main', 'evaluate', 'sweep', 'report', 'sample', 'export',
    'quantize',
  ]  # fmt: skip
  assert '"data_copying": ' in printed['evaluate']
  for name in ('nearest.png', 'grid.png'):
    assert Image.open(tmp_path / name).size[0] > 100
  assert len({*tmp_path.glob('runs/sweep-*/w_bits=*/generator.qgan')}) == 5
  (page,) = tmp_path.glob('runs/sweep-*/report.html')
  assert 'bits' in page.read_text()


@pytest.mark.slow
def test_the_networks_are_trained_by_commands_too(tmp_path, commands):
  ((_, title, code), *_) = BLOCK.findall(PAGE.read_text())
  (tmp_path / title).write_text(code)
  lines = [line for line in lines_of(PAGE) if 'export' not in line]
  done, printed = follow(lines, commands, tmp_path, [])
  assert done == ['main', 'evaluate', 'sweep']
  assert '"frechet_distance": ' in printed['evaluate']
  assert len({*tmp_path.glob('runs/sweep-*/bits=*/generator.qgan')}) == 4


def lines_of(page):
  """The command lines of a page, each of them whole."""
  return [
    line
    for language, _, code in BLOCK.findall(page.read_text())
    if language == 'bash'
    for line in code.replace('\\\n', ' ').splitlines()
  ]


def follow(lines, commands, folder, flags):
  """Runs command lines, in few steps: (their modules, what each printed)."""
  short = [f'--config.{key}={value}' for key, value in SHORT.items()] + flags
  done, printed = [], {}
  for line in lines:
    _, _, module, *words = shlex.split(line)
    done.append(module.removeprefix('qgan_jax.'))
    # The run, or the sweep, that was made last.
    words = [
      str(newest(folder, *word.split('…'))) if '…' in word else word
      for word in words
    ]
    if done[-1] in ('main', 'sweep'):
      words += short
    printed[done[-1]], _ = finish(commands(done[-1], *words, cwd=folder))
  return done, printed


def newest(root, before, after):
  """A flag in which … stands for what was made last: --KEY=FOLDER/…"""
  flag, equals, path = before.rpartition('=')
  found = max(root.glob(f'{path}*'), key=lambda made: made.stat().st_mtime)
  return f'{flag}{equals}{found}{after}'
