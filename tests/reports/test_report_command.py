import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import urllib.request

from fake_runs import make_run, make_sweep
import pandas as pd
from PIL import Image
import pytest

ROOT = Path(__file__).parents[2]


def start(*arguments, cwd):
  return subprocess.Popen(
    [sys.executable, '-m', 'qgan_jax.report', *map(str, arguments)],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process, code=0):
  out, err = process.communicate(timeout=120)
  assert process.returncode == code, err
  assert 'Traceback' not in err
  return out, err


def test_a_page_tables_and_figures(tmp_path):
  folder = make_sweep(tmp_path / 's', bits=(4, 32), seeds=(0, 1))
  out, err = finish(start(folder, cwd=tmp_path))
  assert f'{folder}/report.html: 4 trials' in out
  assert err == ''
  assert (folder / 'report.html').read_text().startswith('<!doctype html>')
  files = folder / 'report-files'
  tables = ('trials', 'curves', 'settings-best', 'settings-last')
  figures = ('score-by-bits', 'score-by-bytes', 'quality-and-diversity')
  assert {path.name for path in files.iterdir()} == {
    f'{name}.{ending}'
    for names, endings in (
      (tables, ('csv', 'parquet')),
      (figures, ('png', 'svg', 'pdf')),
    )
    for name in names
    for ending in endings
  }
  assert len(pd.read_csv(files / 'trials.csv')) == 4
  with Image.open(files / 'score-by-bits.png') as picture:
    assert picture.width > 900
  assert 'Fréchet distance' in (files / 'score-by-bits.svg').read_text()


def test_several_folders_and_flags_anywhere(tmp_path):
  for name in 'a', 'b':
    make_run(tmp_path / name)
  finish(start('a', '--out', 'x.html', 'b', '--nofiles', cwd=tmp_path))
  assert (tmp_path / 'x.html').exists()
  assert not (tmp_path / 'x-files').exists()


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ((), 'a report of which runs?'),
    (('empty',), 'no run in empty'),
    (('absent',), 'absent is no folder'),
    (('run', '--out=no/where.html'), 'cannot write no/where.html'),
    (('run', '--out=page'), '--out=page: give a file that ends in .html'),
    (('run', '--no_such_flag'), 'no_such_flag'),
  ],
)
def test_what_is_wrong_is_one_line(tmp_path, arguments, said):
  (tmp_path / 'empty').mkdir()
  make_run(tmp_path / 'run')
  out, err = finish(start(*arguments, cwd=tmp_path), 2)
  assert out == ''
  assert err.startswith('error: ')
  assert said in err
  assert err.count('\n') == 1


def test_serving_ends_with_ctrl_c(tmp_path):
  make_run(tmp_path / 'run')
  process = start('run', '--serve', '--port=0', cwd=tmp_path)
  line = process.stdout.readline()
  address = re.match(r'http://127\.0\.0\.1:\d+/', line)[0]
  with urllib.request.urlopen(address) as response:
    assert b'data-version' in response.read()
  process.send_signal(signal.SIGINT)
  finish(process)
