"""What is wrong with a file is one sentence that names it, and no traceback."""

import copy
import json
import os
import random
import shutil

from fake_runs import make_run, make_sweep, scores_of
import pytest
from test_page import render

from qgan_jax import evaluate, records
from qgan_jax.errors import UserError
from qgan_jax.launchers.progress import Reader
from qgan_jax.launchers.supervisor import Supervisor
from qgan_jax.quantize import main as quantize_main
from qgan_jax.reports.read import read_runs
from qgan_jax.runs import plan
from qgan_jax.runs.population import read_trials

ODD = (
  None, True, 'text', '', -1, 0.5, 10**30, 10**400, 1e308, float('nan'),
  float('inf'), [], [1], {}, {'a': {}}, '\ud800', 'a\0b',
)  # fmt: skip


def _parts(content):
  """Texts that are no whole JSON."""
  for share in (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
    yield f'cut at {share}', content[: int(len(content.strip()) * share)]
  yield 'twice', content * 2
  yield 'more behind it', content + b'}'
  yield 'spaces', b' \n\n'
  yield 'no text', b'\xff\xfe' + content
  yield 'a byte that is no UTF-8', content.replace(b'"', b'"\xc3', 1)
  yield 'UTF-16', content.decode().encode('utf-16')
  yield 'a mark of order', b'\xef\xbb\xbf' + content
  yield 'zeros', bytes(len(content))
  yield 'single quotes', content.replace(b'"', b"'")
  yield 'no quotes', content.replace(b'"', b'')
  yield 'no colons', content.replace(b':', b' ')
  yield 'lines gone', b''.join(content.splitlines(keepends=True)[1::2])
  rng = random.Random(0)
  for i in range(4):
    yield f'random {i}', rng.randbytes(len(content))


def _values():
  """JSON that is no object of ours."""
  for text in (
    'null', 'true', '0', '1e400', '-1', 'NaN', 'Infinity', '"text"', '[]',
    '[1]', '[[]]', '[{}]', '[null]', '{"config": 1}', '{"trials": 1}',
    '{"best": 1}', '{"step": "x"}', '{"": null}', '"\\ud800"', '9' * 5000,
    '[' * 100_000, '{"a":' * 100_000, '[' * 900 + ']' * 900,
    '{"step": 1e400}', '{"config": {"experiment": 1e400}, "dataset": "x"}',
  ):  # fmt: skip
    yield text[:30], text.encode()


def _places(path):
  """What is no file, at its place."""
  path.unlink()
  path.mkdir()
  yield 'a folder'
  path.rmdir()
  os.mkfifo(path)
  yield 'a pipe'
  path.unlink()
  path.symlink_to(path)
  yield 'a link to itself'
  path.unlink()


def damaged(path):
  """Damages a file in one way after another, and puts it right."""
  content = path.read_bytes()
  for name, data in (*_parts(content), *_values()):
    path.write_bytes(data)
    yield name
  yield from _places(path)
  path.write_bytes(content)


def leaves(value, path=()):
  items = (
    value.items()
    if isinstance(value, dict)
    else enumerate(value)
    if isinstance(value, list)
    else ()
  )
  for key, inner in items:
    yield (*path, key)
    yield from leaves(inner, (*path, key))


def mutated(value):
  """A value with others in each of its places, one at a time, or without."""
  rng = random.Random(0)
  for path in leaves(value):
    for odd in rng.sample(ODD, 3):
      changed = copy.deepcopy(value)
      inner = changed
      for key in path[:-1]:
        inner = inner[key]
      inner[path[-1]] = odd
      yield changed
    del inner[path[-1]]
    yield changed


def one_line(error, path):
  text = str(error.value)
  assert str(path) in text
  assert '\n' not in text
  assert 'Error' not in text
  return True


def test_damage_of_each_kind_is_said_in_a_line(tmp_path):
  sweep = make_sweep(tmp_path / 'sweep', bits=(4,), seeds=(0,), grid=False)
  run = sweep / 'bits=4,seed=0'
  record = [{'workdir': 'a', 'args': ['--config=experiments/digits.py']}]
  records.write_json(sweep / 'population.json', record)
  seen = set()
  for path, schema in (
    (run / 'config.json', records.RUN),
    (run / 'scores.json', records.SCORES),
    (sweep / 'sweep.json', records.SWEEP),
    (sweep / 'states.json', records.STATES),
    (sweep / 'population.json', records.TRIALS),
  ):
    assert records.read(path, schema)
    for kind in damaged(path):
      if kind in ('[]',) and schema is records.TRIALS:
        continue  # No trial at all is a list, too.
      seen.add(kind)
      with pytest.raises(records.DamagedFile) as error:
        records.read(path, schema)
      assert one_line(error, path), kind
    assert records.read(path, schema)
  assert len(seen) >= 50
  assert records.read(tmp_path / 'none', records.RUN) is None


def test_each_reader_says_it(tmp_path, capsys):
  sweep = make_sweep(tmp_path / 'sweep', bits=(4,), seeds=(0,), grid=False)
  run = sweep / 'bits=4,seed=0'
  trials = tmp_path / 'trials.json'
  records.write_json(trials, [{'workdir': 'a', 'args': ['--config=x']}])
  for path, read in (
    (run / 'config.json', lambda: evaluate.main([f'--workdir={run}'])),
    (
      run / 'config.json',
      lambda: quantize_main([f'--workdir={run}', '--bits=4']),
    ),
    (sweep / 'sweep.json', lambda: plan.read(sweep)),
    (trials, lambda: read_trials(trials)),
  ):
    for kind in damaged(path):
      if kind == '[]' and path == trials:
        continue
      with pytest.raises(UserError) as error:
        read()
      assert one_line(error, path), kind
  # A sweep goes on without its counts, and trains a trial without scores.
  for kind in damaged(sweep / 'states.json'):
    Supervisor(
      [], None, None, states=sweep / 'states.json', retries=1, grace=1.0
    )
    assert f'{sweep}/states.json' in capsys.readouterr().err, kind
  for kind in damaged(run / 'scores.json'):
    progress = Reader(run).read()
    assert not progress.done, kind
    assert f'{run}/scores.json' in progress.damage
  assert Reader(run).read().damage == ''


def test_metrics_are_read_around_what_is_damaged(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  good = {'step': 1, 'dataset': 'digits', 'a': 1, 'b': 'NaN', 'c': '-Infinity'}
  lines = [json.dumps(good).encode()]
  bad = [data for _, data in _values() if b'\n' not in data]
  for name, odd in (('step', 'x'), ('step', -1), ('a', [1]), ('dataset', 3)):
    bad.append(json.dumps(good | {name: odd}).encode())
  path.write_bytes(b'\n'.join([*lines, *bad, *lines, b'{"step": 3']))
  rows, damage = records.read_metrics(path)
  assert [row['step'] for row in rows] == [1, 1]
  assert rows[0]['a'] == 1.0
  assert rows[0]['b'] != rows[0]['b']
  assert f'{path} is damaged: line 2: ' in damage
  assert damage.endswith(f'; {len(bad) - 1} more lines')
  path.write_bytes(b'\n'.join(lines) + b'\n{"step": 3')
  assert records.read_metrics(path)[1] == ''
  for kind in damaged(path):
    Reader(tmp_path).read()
    if kind in ('a folder', 'a link to itself', 'a pipe'):
      assert str(path) in records.read_metrics(path)[1], kind


FILES = ('config.json', 'scores.json', 'metrics.jsonl')


def test_a_report_shows_damaged_runs_and_the_others(tmp_path):
  sweep = make_sweep(tmp_path / 'runs' / 'sweep', bits=(4, 32), seeds=(0,))
  first = sweep / 'bits=4,seed=0'
  count = 0
  for file in FILES:
    for kind in damaged(first / file):
      if kind in ('a pipe', 'a link to itself'):
        continue  # They cannot be copied.
      copied = tmp_path / 'runs' / f'{file} {count}'
      shutil.copytree(first, copied)
      count += 1
      (run,) = read_runs([copied])
      cut = file == 'metrics.jsonl' and run.state == 'done'
      assert cut or (run.state == 'damaged' and file in run.message), kind
  runs = {run.name: run for run in read_runs([tmp_path / 'runs'])}
  assert len(runs) == count + 2
  for name in 'bits=4,seed=0', 'bits=32,seed=0':
    assert runs[name].state == 'done'
    assert len(runs[name].curves['d_loss'][0]) == 10
  page = render(tmp_path / 'runs')
  assert 'scores.json is damaged' in page
  assert 'config.json is damaged' in page
  assert 'metrics.jsonl is damaged' in page


@pytest.mark.parametrize('file', ['sweep.json', 'states.json'])
def test_a_report_names_a_sweep_s_damaged_file(tmp_path, file):
  sweep = make_sweep(tmp_path / 'sweep', bits=(4,), seeds=(0,), grid=False)
  for kind in damaged(sweep / file):
    runs = {run.name: run for run in read_runs([tmp_path])}
    assert runs['bits=4,seed=0'].state == 'done', kind
    assert runs['sweep'].state == 'damaged', kind
    assert f'{sweep}/{file}' in runs['sweep'].message
  (sweep / file).write_text('{')
  assert f'{file} is damaged' in render(tmp_path)


@pytest.mark.parametrize('file', ['config.json', 'scores.json'])
def test_what_a_reader_takes_a_page_can_show(tmp_path, file):
  """Other values at every place: refused by the schema, or shown."""
  source = make_run(tmp_path / 'source')
  value = json.loads((source / file).read_text())
  taken = refused = 0
  for i, changed in enumerate(mutated(value)):
    (source / file).write_text(json.dumps(changed))
    (run,) = read_runs([source])
    if run.state == 'damaged':
      assert f'{source}/{file}' in run.message
      refused += 1
    else:
      taken += 1
      copied = tmp_path / 'taken' / f'{i}'
      copied.mkdir(parents=True)
      for name in ('config.json', 'scores.json'):
        shutil.copy(source / name, copied)
  assert refused > 20
  assert taken > 20
  assert render(tmp_path / 'taken')


def test_a_picture_that_is_damaged_is_left_out(tmp_path):
  run = make_run(tmp_path / 'run')
  for picture in (run / 'samples').iterdir():
    picture.write_bytes(picture.read_bytes()[:60])
  assert render(tmp_path)


@pytest.mark.parametrize(
  'literal', ['1e400', '-1e400', 'NaN', '1' + 400 * '0', 'true', '"1"', '[1]']
)
@pytest.mark.parametrize('name', ['frechet_distance', 'num_fake', 'other'])
def test_a_number_is_one_that_is_finite(tmp_path, name, literal):
  scores = scores_of(3.0, other=1.5)
  path = tmp_path / 'scores.json'
  records.write_json(path, scores)
  assert records.read(path, records.SCORES) == scores
  scores['best'] |= {name: '?'}
  path.write_text(json.dumps(scores).replace('"?"', literal))
  if name == 'other' and literal in ('true', '"1"', '[1]'):
    assert records.read(path, records.SCORES)['best'][name]
  else:
    with pytest.raises(records.DamagedFile, match=f'{path} is damaged: '):
      records.read(path, records.SCORES)
