"""Wrong commands: each is one sentence and exit code 2, before any work.

A case is a command as a person types it. It runs in a folder that holds a
little of everything a command can be given, and must leave it as it is.
"""

import importlib
import json
import re
import shlex
import shutil
import sys
import types

from command_line import ROOT
import example_generator
import pytest

from qgan_jax import artifacts, errors
from qgan_jax import config as config_lib
from qgan_jax.launchers import ray, slurm, supervisor
from qgan_jax.metrics import classifier
from qgan_jax.reports import serve
from qgan_jax.runs import after_training, population
from qgan_jax.training import devices, loop

MODULES = {
  path.stem: importlib.import_module(f'qgan_jax.{path.stem}')
  for path in sorted((ROOT / 'qgan_jax').glob('[!_]*.py'))
  if path.stem not in ('backend', 'errors', 'interrupts')
}
# Lines that say what a run is doing, and how long it took.
PROGRESS = re.compile(r'[a-z ]+(…|: [\d.]+ s)')
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
  for key in ('start_step', 'anneal_steps', 'prune_steps'):
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
  yield from (f'image_size={x}' for x in ('0', '15', 10**9))
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
  yield 'source=folder:~no_such_user/a'
  yield from ('source=folder,dir=none', 'source=folder,dir=digits.py')
  yield from ('init_from=none', 'init_from=~no_such_user/run', 'rules=x')
  yield from ('extractor=inception', 'batch_size=1000000000')
  yield 'extractor=inception,scores.inception_weights=none.pth'
  yield from (f'scores.samples={x}' for x in ('9', 2_000_000_000))
  yield 'logging.eval_samples=2000000000'
  yield from (
    'channels=1000000',
    'latent_dim=2000000000',
    f'steps={"9" * 5000}',
  )


def _with(command, flag, values):
  """The command with each value of a flag."""
  return [f'{command} --{flag}={value}' for value in values]


def _of_every_door():
  for door in MODULES:
    yield from (f'{door} --no_such=1', f'{door} --no_such', f'{door} -x')
    yield from (f'{door} --flagfile=none', f'{door} --verbosity=x')
    if door != 'report':  # It takes folders that are no flags.
      yield from (door, f'{door} once', f'{door} --', f'{door} -- once')


def _flags():
  """Numbers and names that a flag does not take."""
  huge, no_number = '1' + '0' * 20, ('x', '1e3', '', '1.5')
  sample = 'sample --artifact=g.qgan --out=new/'
  yield from _with(sample, 'num', ('0', '-5', huge, *no_number))
  yield from _with(sample, 'seed', ('-1', 2**64, *no_number))
  yield from _with(sample, 'label', ('-1', '3', huge, 'x'))
  yield from _with(sample, 'runtime', ('', 'no_such', 'openvino'))
  yield 'sample --artifact=g.qgan --out=new.png --num=1000000000'
  evaluate = 'evaluate --workdir=run'
  yield from _with(evaluate, 'samples', ('0', '1', '-5', huge, *no_number))
  yield from _with(evaluate, 'seed', ('-1', 2**64, 'x'))
  yield from _with(evaluate, 'step', ('-1', huge, 'x', '7'))
  yield from _with(evaluate, 'nearest', ('', 'x', 'x.jpg', 'none/x.png'))
  yield f'{evaluate} --time_limit=9'
  yield from _with('report run', 'port', ('-1', '99999', huge, 'x', ''))
  yield from _with('report run', 'within', ('-1', 'nan', 'inf', 'x'))
  hosts = '', 'no.such.host.invalid', '300.1.1.1', 'x' * 300
  yield from _with('report run --serve --port=0', 'host', hosts)
  one = 'quantize --workdir=run'
  for flag in 'bits', 'w_bits', 'size':
    yield from _with(one, flag, ('0', '-5', 'x', ''))
  yield from _with(one, 'bits', ('17', huge))
  yield from _with(one, 'max_ratio', ('nan', 'inf', '-1', 'x'))
  eight = f'{one} --bits=8'
  yield from _with(eight, 'a_bits', ('0', '17', huge))
  yield from _with(eight, 'samples', ('0', '-5', huge, 'x'))
  yield from _with(eight, 'rounding_steps', ('-5', huge))
  yield from _with(eight, 'seed', ('-5', 2**64))
  for flag in 'method', 'quantizer', 'activation_quantizer', 'calibration':
    yield from _with(eight, flag, ('', 'no_such'))
  yield from (one, f'{eight} --size=9999', f'{one} --size=9 --w_bits=2')
  yield f'{eight} --method=adaround --quantizer=uniform'
  yield f'{one} --size=9999 --quantizer=ternary'
  sweep = f'sweep {DIGITS} --sweep=bits=4,8'
  for flag in 'parallel', 'cpus':
    yield from _with(sweep, flag, ('0', '-1', huge, 'x', ''))
  yield from _with(sweep, 'gpus', ('-1', 'nan', 'inf', '1.5', 'x'))
  yield from _with(sweep, 'grace', ('-1', 'nan', 'inf', 'x'))
  yield from _with(sweep, 'retries', ('-1', 'x'))
  yield f'sweep {DIGITS} --dry_run=maybe'
  for flag in 'layout', 'launcher':
    yield from _with(sweep, flag, ('', 'no_such'))
  options = 'partition', '=gpu', 'a=1,', ''
  yield from _with(f'{sweep} --launcher=slurm', 'slurm', options)
  resources = 'TPU', 'TPU=x', 'TPU=nan', 'TPU=-1', ''
  yield from _with(f'{sweep} --launcher=ray', 'ray_resources', resources)
  addresses = 'localhost:1', 'localhost:99999'
  yield from _with(f'{sweep} --launcher=ray', 'ray_address', addresses)
  main = f'main {DIGITS}'
  yield from _with(main, 'processes', ('0', '-1', '2', 'x'))
  yield from _with(main, 'process', ('-1', '0', 'x'))
  addresses = '', 'a', 'localhost:', ':1', 'a:b', 'a:99999', 'a:0'
  yield from _with(
    f'{main} --processes=2 --process=0', 'coordinator', addresses
  )
  yield f'{main} --coordinator=localhost:1 --processes=2 --process=2'
  yield f'{main} --distributed=x'
  # 1.6 TB of images.
  drawn = f'evaluate {DIGITS} --artifact=g.qgan'
  yield from _with(drawn, 'samples', ('9', '2000000000'))


def _experiments():
  """Experiment files, their configs and sweeps."""
  for string in _config_strings():
    yield f'main --config=digits.py:{string}'
  for name in EXPERIMENTS:
    yield f'main --config={name}.py:'
    yield f'sweep --config={name}.py: --sweep=bits=4,8'
  yield from (f'sweep --config={name}.py' for name in ('none', *SWEEPS))
  yield 'evaluate --artifact=g.qgan --config=exits.py'
  yield from _with('main', 'config', (
    '', 'none.py', 'digit', 'folder', 'folder.py', 'run/config.json',
    '/none/digits.py', '~no_such_user/digits.py', ':bits=8', 'empty.py',
  ))  # fmt: skip
  main = f'main {DIGITS}'
  yield from ('main --config', f'{main} {DIGITS}', 'main --config.steps=5')
  for override in (
    'no_such=1', 'steps=x', 'steps=1.5', 'steps=0', 'steps', 'bist=8', '=5',
    'learning_rate=nan', 'generator=5', 'data.standin=x', 'seed=-1', 'steps=',
    'data.source=', 'lr=1', 'precision.rules=x', f'batch_size={10**20}',
    f'seed={2**64}', 'model=5', 'nosteps',
  ):  # fmt: skip
    yield f'{main} --config.{override}'
  for text in (
    '', ';', 'bits', 'bits=', '=4', 'bits=4,', 'bits=4;', 'bits=4&seed=1,2',
    'bits=8..4', 'seed=0..99999999999999999999', 'no_such=1,2', 'bits=4,4',
    'bits=4;bits=8', 'bits=99', 'seed=0..9999;bits=1..8', 'bits=x..y',
    f'seed=0..{"9" * 5000}', 'bits=4&&seed=1',
  ):  # fmt: skip
    yield shlex.join(['sweep', DIGITS, f'--sweep={text}'])
  yield f'sweep {DIGITS} --sweep=bits=4,8 --config.seed={2**64}'
  yield 'sweep --config=digits.py:bits=2 --sweep=bits=4,8'
  for missing in (
    'source=folder,dir=none', 'source=folder,dir=folder', 'source=no_such_set',
    'source=cifar10,dir=none', 'init_from=none', 'scores.samples=9',
    'extractor=inception,scores.inception_weights=none.pth',
  ):  # fmt: skip
    for run in '', ' --dry_run':
      yield f'sweep --config=digits.py:{missing} --sweep=bits=4,8{run}'
  yield 'sweep --config=digits.py --config.seed=1 --sweep=seed=1,2'


def _paths():
  """Files and folders that are not there, or are something else."""
  home, long = '~no_such_user/a', 'x' * 300
  main, sweep = f'main {DIGITS}', f'sweep {DIGITS} --sweep=bits=4,8'
  for command in main, sweep:
    yield from _with(
      command, 'workdir', ('', 'digits.py', 'digits.py/new', home, long)
    )
  yield from _with('sweep', 'resume', ('', 'none', 'digits.py', 'folder', home))
  yield from ('sweep --workdir=folder', f'{sweep} --resume=run')
  yield 'sweep --resume'
  yield from _with(
    'population', 'trials', ('', 'none', 'folder', 'g.qgan', home, long)
  )
  yield from _with('population', 'trials', (f'{x}.json' for x in POPULATIONS))
  for command in 'quantize --bits=8', 'evaluate':
    yield from _with(
      command, 'workdir', ('', 'none', 'digits.py', 'folder', 'g.qgan', home)
    )
  yield from ('evaluate --artifact=g.qgan', f'evaluate {DIGITS}')
  # Its folder is the package's.
  yield 'export --artifact=gallery:heroes'
  yield f'evaluate --workdir=run {DIGITS}'
  for command in (
    'sample --out=new.png',
    'export --out=new',
    f'evaluate {DIGITS}',
  ):
    yield from _with(command, 'artifact', (
      '', 'none.qgan', 'folder', 'digits.py', 'empty.qgan', 'cut.qgan',
      'cut.onnx', 'cut.stablehlo', home, long,
    ))  # fmt: skip
  yield from _with('sample --artifact=g.qgan --num=2', 'out', (
    '', 'new', 'new.jpg', '.png', 'none/new.png', 'folder', 'folder/',
    'digits.py/', 'digits.py/new.png', f'{home}.png', f'{long}.png',
  ))  # fmt: skip
  yield from ('sample --artifact=g.qgan', 'sample --out=new.png')
  export = 'export --artifact=g.qgan'
  formats = '', 'no_such', 'onnx,', ',', 'onnx,no_such', 'ONNX'
  yield from _with(f'{export} --out=new', 'format', formats)
  folders = '', 'digits.py', 'digits.py/new', home, long
  yield from _with(f'{export} --format=packed', 'out', folders)
  yield from _with(f'{export} --format=web --out=new', 'ort_web', ('', 'none'))
  yield f'{export} --format=packed --out=new --ort_web=folder'
  folders = '', 'none', 'digits.py', 'folder', 'run'
  yield from _with('export --out=new', 'workdir', folders)
  yield from ('export --artifact', f'{export} --workdir=run')
  for folder in 'none', 'digits.py', 'folder', '""', home, long:
    yield from (f'report {folder}', f'report {folder} --serve --port=0')
  pages = '', 'none/new.html', 'folder', 'digits.py/new.html', long
  yield from _with('report run', 'out', pages)
  yield from ('report', 'report run none', 'report run --files=x')


COMMANDS = [*_of_every_door(), *_flags(), *_experiments(), *_paths()]


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
    (slurm, 'SlurmLauncher'),
    (after_training, '_quantize'),
    (classifier, '_train'),
    (serve.ThreadingHTTPServer, 'serve_forever'),
    (devices.jax.distributed, 'initialize'),
  ):
    monkeypatch.setattr(module, name, _work)
  for door in (MODULES['main'], population):
    monkeypatch.setattr(door, 'keep_programs', lambda: None)
  # A classifier that is cached would hide that it is asked for.
  monkeypatch.setenv('QGAN_JAX_CACHE', str(place / 'none'))
  stand_in = types.SimpleNamespace(init=_work)
  monkeypatch.setattr(ray, '_import_ray', lambda: stand_in)
  code = call(command, monkeypatch)
  captured = capsys.readouterr()
  assert code == 2, captured
  lines = [x for x in captured.err.splitlines() if not PROGRESS.fullmatch(x)]
  assert len(lines) == 1, captured.err
  assert lines[0].startswith('error: ')
  assert len(lines[0]) < 2100
  assert 'Traceback' not in lines[0]
  assert listing(place) == before
