"""The tutorial on a network of one's own runs as it stands."""

import importlib
from pathlib import Path
import re
import shlex
import sys

import pytest

from qgan_jax.metrics import classifier
from qgan_jax.runs import own

PAGE = Path(__file__).parents[1] / 'docs' / 'own_model.md'
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
