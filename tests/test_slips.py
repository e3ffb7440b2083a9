"""Wrong commands: each is one sentence and exit code 2, before any work.

A case is a command as a person types it. It runs in a folder that holds a
little of everything a command can be given, and must leave it as it is.
"""

import importlib
import json
from pathlib import Path
import shlex
import shutil
import sys
import types

from command_line import ROOT
import pytest

from qgan_jax import artifacts, errors
from qgan_jax import config as config_lib
from qgan_jax.launchers import ray, supervisor
from qgan_jax.metrics import classifier
from qgan_jax.reports import serve
from qgan_jax.runs import after_training
from qgan_jax.training import devices, loop

sys.path.append(str(Path(__file__).parent / 'artifacts'))
import example_generator

MODULES = {
  path.stem: importlib.import_module(f'qgan_jax.{path.stem}')
  for path in sorted((ROOT / 'qgan_jax').glob('[!_]*.py'))
  if path.stem != 'errors'
}
DIGITS = '--config=digits.py:batch_size=8'
TRIAL = '{"workdir": "new", "args": ["--config=digits.py"]}'
START = 'from qgan_jax.config import base, override\n'
GET = START + 'def get_config(arg=None):\n  '
BASE = 'return override(base(experiment="digits"), arg)\n'

EXPERIMENTS = {
  'syntax': 'def get_config(arg=None)\n  return 1\n',
  'indented': START + ' def get_config():\n',
  'nul': 'a = "\0"\n',
  'none': START,
  'no_function': 'get_config = 5\n',
  'raises': GET + 'raise RuntimeError("one\\ntwo")\n',
  'value': GET + 'raise ValueError("one\\ntwo")\n',
  'type': GET + 'return base(experiment=5)\n',
  'exits': GET + 'raise SystemExit(0)\n',
  'import': 'import no_such_module\n' + GET + BASE,
  'from_import': 'from qgan_jax.config import no_such\n' + GET + BASE,
  'at_once': '1 / 0\n',
  'missing_file': GET + 'open("no_such_file")\n',
  'recursion': GET + 'return get_config(arg)\n',
  'assertion': GET + 'assert False\n',
  'text': GET + 'return "a config"\n',
  'nothing': GET + 'pass\n',
  'mapping': GET + 'return base().to_dict()\n',
  'small': 'from ml_collections import ConfigDict\n' + GET
  + 'return ConfigDict({"steps": 5})\n',
  'unknown_key': GET + 'return base(no_such=5)\n',
  'wrong_value': GET + 'return base(experiment="digits", bits=99)\n',
  'no_argument': START + 'def get_config():\n  return base()\n',
  'assigns': GET + 'c = base()\n  c.no_such = 1\n  return c\n',
}  # fmt: skip
SWEEPS = {
  'own_raises': 'raise RuntimeError("one\\ntwo")',
  'own_number': 'add(5)',
  'own_nothing': 'pass',
  'own_wrong': 'add("bits=99")',
  'own_divides': 'add(1 / 0)',
}
POPULATIONS = {
  'empty': '[]',
  'blank': '',
  'broken': '[{',
  'mapping': '{}',
  'number': '5',
  'null': 'null',
  'texts': '["a"]',
  'numbers': '[1, 2]',
  'nested': '[' * 100_000,
  'no_args': '[{"workdir": "new"}]',
  'no_workdir': '[{"args": ["--config=digits.py"]}]',
  'empty_workdir': '[{"workdir": "", "args": ["--config=digits.py"]}]',
  'number_workdir': '[{"workdir": 5, "args": ["--config=digits.py"]}]',
  'text_args': '[{"workdir": "new", "args": "--config=digits.py"}]',
  'number_args': '[{"workdir": "new", "args": [5]}]',
  'null_args': '[{"workdir": "new", "args": null}]',
  'empty_args': '[{"workdir": "new", "args": []}]',
  'wrong_args': '[{"workdir": "new", "args": ["--config=digits.py:bits=99"]}]',
  'other_flag': '[{"workdir": "new", "args": ["--config=digits.py", "--a=1"]}]',
  'twice': f'[{TRIAL}, {TRIAL}]',
  'home': f'[{TRIAL.replace("new", "~no_such_user/new")}]',
  'exits': f'[{TRIAL.replace("digits.py", "exits.py")}]',
}


def _config_strings():
  """What may follow an experiment's file, and should not."""
  for key in (
    'steps', 'batch_size', 'latent_dim', 'channels', 'log_every',
    'checkpoint_every', 'eval_every', 'sample_every', 'd_steps',
    'diagnose_every',
  ):  # fmt: skip
    yield from (f'{key}={x}' for x in ('0', '-1', '100000000000000000000000'))
  for key in ('start_step', 'anneal_steps', 'prune_steps', 'alternate_steps'):
    yield from (f'{key}={x}' for x in ('-1', '100000000000000000000000'))
  for key in ('learning_rate', 'd_learning_rate'):
    yield from (
      f'{key}={x}' for x in ('0', '-1', 'nan', 'inf', '1e300', '1e-99')
    )
  for key in ('penalty_weight', 'quantizer_learning_rate', 'weight_decay'):
    yield from (f'{key}={x}' for x in ('-1', 'nan', '1e39', f'{10**400}'))
  for key in ('ema', 'sparsity', 'b1', 'loss.penalty_fraction'):
    yield from (f'{key}={x}' for x in ('-0.1', '1.5', 'nan', 'x'))
  yield 'ema=0.9999999999'
  yield from (f'seed={x}' for x in ('-1', 2**32, 2**64, '1.5', '1e3', 'x'))
  yield from (f'bits={x}' for x in ('0', '-1', '17', '31', '33', '1.5', 'x'))
  yield from (f'image_size={x}' for x in ('0', '29', 10**9))
  for key in (
    'quantizer', 'activation_quantizer', 'optimizer', 'loss', 'penalty',
    'norm', 'model', 'dtype', 'learning_rate_decay', 'ranges', 'extractor',
  ):  # fmt: skip
    yield f'{key}=no_such'
  yield from ('standin=yes', 'diagnose=2', 'conditional=')
  yield from ('bits', 'bits=', '=8', '=', ',', 'bits=8,', ',bits=8', 'bits==')
  yield from ('bits=8,bits=4', 'bits=8,,seed=1', 'channels=8,no_such=1')
  yield from ('no_such=1', 'bist=8', 'data=5', 'generator.bits=5', 'a.b.c=1')
  yield from ('experiment=a/b', 'experiment=..', 'source=no_such_set')
  yield from ('dir=/a,b,source=folder', 'source=folder', 'source=folder:none')
  yield from ('source=folder,dir=none', 'source=folder,dir=digits.py')
  yield from ('init_from=none', 'init_from=~no_such_user/run', 'rules=x')
  yield from ('extractor=inception', 'batch_size=1000000000')
  yield from (
    'channels=1000000',
    'latent_dim=2000000000',
    f'steps={"9" * 5000}',
  )


def _numbers(door, flag, values):
  return [f'{door} --{flag}={value}' for value in values]


def _commands():
  """All wrong commands."""
  for door in MODULES:
    yield from (f'{door} --no_such=1', f'{door} --no_such', f'{door} -x')
    yield f'{door} --flagfile=none'
    yield f'{door} --verbosity=x'
    if door != 'report':
      yield from (door, f'{door} once', f'{door} --', f'{door} -- once')

  # Numbers and names.
  huge, wrong = '1' + '0' * 20, ('x', '1e3', '', '1.5')
  run = 'quantize --workdir=run --bits=8'
  yield from _numbers('sample --artifact=g.qgan --out=new/ ', 'num', (
    '0', '-5', huge, *wrong))  # fmt: skip
  yield from _numbers('sample --artifact=g.qgan --out=new/', 'seed', (
    '-1', 2**64, *wrong))  # fmt: skip
  yield from _numbers('sample --artifact=g.qgan --out=new/', 'label', (
    '-1', '3', huge, 'x'))  # fmt: skip
  yield from _numbers('sample --artifact=g.qgan --out=new/', 'runtime', (
    '', 'no_such', 'openvino'))  # fmt: skip
  yield 'sample --artifact=g.qgan --out=new.png --num=1000000000'
  yield from _numbers('evaluate --workdir=run', 'samples', (
    '0', '1', '-5', huge, *wrong))  # fmt: skip
  yield from _numbers('evaluate --workdir=run', 'seed', ('-1', 2**64, 'x'))
  yield from _numbers('evaluate --workdir=run', 'step', ('-1', huge, 'x', '7'))
  yield from _numbers('report run', 'port', ('-1', '99999', huge, 'x', ''))
  yield from _numbers('report run --serve --port=0', 'host', (
    '', 'no.such.host.invalid', '300.1.1.1', 'x' * 300))  # fmt: skip
  yield from _numbers('report run', 'within', ('-1', 'nan', 'inf', 'x'))
  yield from _numbers(run, 'samples', ('0', '-5', huge, 'x'))
  yield from _numbers(run, 'rounding_steps', ('-5', huge))
  yield from _numbers(run, 'seed', ('-5', 2**64))
  for flag in 'method', 'quantizer', 'activation_quantizer', 'calibration':
    yield from _numbers(run, flag, ('', 'no_such'))
  one = 'quantize --workdir=run'
  for flag in 'bits', 'w_bits', 'size':
    yield from _numbers(one, flag, ('0', '-5', 'x', ''))
  yield from _numbers(one, 'bits', ('17', huge))
  yield from _numbers(run, 'a_bits', ('0', '17', huge))
  yield from _numbers(one, 'max_ratio', ('nan', 'inf', '-1', 'x'))
  yield from (
    one,
    f'{run} --size=9999',
    f'{run} --method=adaround --quantizer=uniform',
    f'{one} --size=9999 --quantizer=ternary',
  )
  sweep = f'sweep {DIGITS} --sweep=bits=4,8'
  for flag in 'parallel', 'cpus':
    yield from _numbers(sweep, flag, ('0', '-1', huge, 'x', ''))
  yield from _numbers(sweep, 'gpus', ('-1', 'nan', 'inf', '1.5', 'x'))
  yield from _numbers(sweep, 'grace', ('-1', 'nan', 'inf', 'x'))
  yield from _numbers(sweep, 'retries', ('-1', 'x'))
  for flag in 'layout', 'launcher':
    yield from _numbers(sweep, flag, ('', 'no_such'))
  yield from (f'{sweep} --launcher=slurm --slurm={x}' for x in (
    'partition', '=gpu', 'a=1,', ''))  # fmt: skip
  yield from (f'{sweep} --launcher=ray --ray_resources={x}' for x in (
    'TPU', 'TPU=x', 'TPU=nan', 'TPU=-1', ''))  # fmt: skip
  yield f'{sweep} --launcher=ray --ray_address=localhost:1'
  yield f'{sweep} --launcher=ray --ray_address=localhost:99999'
  main = f'main {DIGITS}'
  yield from _numbers(main, 'processes', ('0', '-1', '2', 'x'))
  yield from _numbers(main, 'process', ('-1', '0', 'x'))
  for address in '', 'a', 'localhost:', ':1', 'a:b', 'a:99999', 'a:0':
    yield f'{main} --processes=2 --process=0 --coordinator={address}'
  yield f'{main} --coordinator=localhost:1 --processes=2 --process=2'
  yield from (f'{main} --distributed=x', f'sweep {DIGITS} --dry_run=maybe')

  # Experiments and their configs.
  for string in _config_strings():
    yield f'main --config=digits.py:{string}'
  for name in EXPERIMENTS:
    yield f'main --config={name}.py:'
    yield f'sweep --config={name}.py: --sweep=bits=4,8'
  yield 'sweep --config=none.py'
  yield from (f'sweep --config={name}.py' for name in SWEEPS)
  yield 'evaluate --artifact=g.qgan --config=exits.py'
  for file in (
    '', 'none.py', 'digits', 'folder', 'folder.py', 'run/config.json',
    '/none/digits.py', '~no_such_user/digits.py', ':bits=8', 'empty.py',
  ):  # fmt: skip
    yield f'main --config={file}'
  yield from ('main --config', f'{main} {DIGITS}', 'main --config.steps=5')
  for flag in (
    'no_such=1', 'steps=x', 'steps=1.5', 'steps=0', 'steps', 'bist=8', '=5',
    'learning_rate=nan', 'generator=5', 'data.standin=x', 'seed=-1', 'steps=',
    'data.source=', 'lr=1', 'precision.rules=x', f'batch_size={huge}',
    'init_from=none', 'seed=18446744073709551616', 'model=5', 'nosteps',
  ):  # fmt: skip
    yield f'{main} --config.{flag}'
  for text in (
    '', ';', 'bits', 'bits=', '=4', 'bits=4,', 'bits=4;', 'bits=4&seed=1,2',
    'bits=8..4', 'seed=0..99999999999999999999', 'no_such=1,2', 'bits=4,4',
    'bits=4;bits=8', 'bits=99', 'seed=0..9999;bits=1..8', 'bits=x..y',
    f'seed=0..{"9" * 5000}', 'bits=4&&seed=1',
  ):  # fmt: skip
    yield shlex.join(['sweep', DIGITS, f'--sweep={text}'])
  yield f'{sweep} --config.seed=18446744073709551616'
  yield 'sweep --config=digits.py:bits=2 --sweep=bits=4,8'
  yield 'sweep --config=digits.py --config.seed=1 --sweep=seed=1,2'

  # Files and folders.
  for flag in 'workdir', 'resume':
    yield from _numbers('sweep', flag, ('', 'none', 'digits.py', 'folder'))
  yield from (f'{sweep} --resume=run', 'sweep --resume', 'sweep --resume=~x/y')
  for path in '', 'digits.py/new', 'digits.py', '~no_such_user/new', 'x' * 300:
    yield f'{main} --workdir={path}'
    yield f'{sweep} --workdir={path}'
  yield from _numbers(
    'population',
    'trials',
    ('', 'none.json', 'folder', 'g.qgan', '~no_such_user/a', 'x' * 300),
  )
  yield from (f'population --trials={name}.json' for name in POPULATIONS)
  for door, bits in ('quantize', '--bits=8'), ('evaluate', ''):
    for path in '', 'none', 'digits.py', 'folder', 'g.qgan', '~no_such_user/a':
      yield f'{door} --workdir={path} {bits}'
  yield from ('evaluate --artifact=g.qgan', f'evaluate {DIGITS}')
  yield f'evaluate --workdir=run {DIGITS}'
  files = (
    '',
    'none.qgan',
    'folder',
    'digits.py',
    'empty.qgan',
    'cut.qgan',
    'cut.onnx',
    'cut.stablehlo',
    '~no_such_user/a.qgan',
    'x' * 300,
  )
  for file in files:
    yield f'sample --artifact={file} --out=new.png'
    yield f'export --artifact={file} --out=new'
    yield f'evaluate --artifact={file} {DIGITS}'
  for out in (
    '',
    'new',
    'new.jpg',
    'none/new.png',
    'digits.py/',
    'folder/',
    'folder',
    'digits.py/new.png',
    '~no_such_user/a.png',
    '.png/'[:4],
    'x' * 300 + '.png',
  ):
    yield f'sample --artifact=g.qgan --num=2 --out={out}'
  for format_ in '', 'no_such', 'onnx,', ',', 'onnx,no_such', 'ONNX':
    yield f'export --artifact=g.qgan --out=new --format={format_}'
  for out in '', 'digits.py', 'digits.py/new', '~no_such_user/a', 'x' * 300:
    yield f'export --artifact=g.qgan --format=packed --out={out}'
  for folder in '', 'none', 'digits.py', 'folder':
    yield f'export --artifact=g.qgan --format=web --ort_web={folder} --out=new'
  for folder in '', 'none', 'digits.py', 'folder', 'run':
    yield f'export --workdir={folder} --out=new'
  yield from ('export --artifact', 'export --workdir=run --artifact=g.qgan')
  yield from ('sample --artifact=g.qgan', 'sample --out=new.png')
  for folder in (
    'none',
    'digits.py',
    'folder',
    '""',
    '~no_such_user/a',
    'x' * 300,
  ):
    yield f'report {folder}'
    yield f'report {folder} --serve --port=0'
  for out in '', 'none/new.html', 'folder', 'digits.py/new.html', 'x' * 300:
    yield f'report run --out={out}'
  yield from ('report', 'report run none', 'report run --files=x')


COMMANDS = list(dict.fromkeys(_commands()))


class Worked(BaseException):
  """A command that is wrong has begun to work."""


def _work(*args, **kwargs):
  raise Worked


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with an experiment, a run, an artifact and much that is broken."""
  path = tmp_path_factory.mktemp('slips')
  shutil.copy(ROOT / 'experiments/digits.py', path)
  for name, text in EXPERIMENTS.items():
    (path / f'{name}.py').write_text(text)
  for name, line in SWEEPS.items():
    text = f'{GET}{BASE}\ndef sweep(add):\n  {line}\n'
    (path / f'{name}.py').write_text(text)
  for name, text in POPULATIONS.items():
    (path / f'{name}.json').write_text(text)
  for folder in 'folder', 'folder.py', 'run':
    (path / folder).mkdir()
  (path / 'folder/some.txt').touch()
  (path / 'empty.py').touch()
  network, _, _ = example_generator.make_generator(num_classes=3)
  artifacts.save(path / 'g.qgan', network)
  content = (path / 'g.qgan').read_bytes()
  for name, start in (
    ('empty.qgan', b''),
    ('cut.qgan', content[:-100]),
    ('cut.onnx', b'\x08\x08' + content[:100]),
    ('cut.stablehlo', b'PK\3\4' + content[:100]),
  ):
    (path / name).write_bytes(start)
  config = config_lib.resolve(config_lib.base(experiment='digits'))
  record = {'config': config.to_dict(), 'dataset': 'digits'}
  (path / 'run/config.json').write_text(json.dumps(record))
  return path


def call(command, monkeypatch):
  """The exit code of a command in this process."""
  door, *arguments = shlex.split(command)
  monkeypatch.setattr(sys, 'argv', [door, *arguments])
  with pytest.raises(SystemExit) as ended:
    errors.run(MODULES[door].main)
  return ended.value.code


def listing(path):
  return sorted(
    str(p.relative_to(path))
    for p in path.rglob('*')
    if '__pycache__' not in p.parts
  )


@pytest.mark.parametrize('command', COMMANDS, ids=lambda c: c[:60])
def test_a_slip_is_one_sentence(command, place, monkeypatch, capsys):
  monkeypatch.chdir(place)
  before = listing(place)
  for module, name in (
    (loop, 'train'),
    (supervisor.Supervisor, 'run'),
    (after_training, '_quantize'),
    (classifier, '_train'),
    (serve.ThreadingHTTPServer, 'serve_forever'),
    (devices.jax.distributed, 'initialize'),
  ):
    monkeypatch.setattr(module, name, _work)
  # A classifier that is cached would hide that it is asked for.
  monkeypatch.setenv('QGAN_JAX_CACHE', str(place / 'none'))
  stand_in = types.SimpleNamespace(init=_work)
  monkeypatch.setattr(ray, '_import_ray', lambda: stand_in)
  code = call(command, monkeypatch)
  captured = capsys.readouterr()
  assert code == 2, captured
  lines = captured.err.splitlines()
  assert len(lines) == 1, captured.err
  assert lines[0].startswith('error: ')
  assert len(lines[0]) < 2100
  assert 'Traceback' not in lines[0]
  assert listing(place) == before
