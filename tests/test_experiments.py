import importlib.util
from pathlib import Path
import subprocess
import sys

from absl import flags
import pytest

from qgan_jax import config as config_lib
from qgan_jax.config import experiments
from qgan_jax.config import flags as config_flags
from qgan_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / 'experiments').glob('*.py'))
COMMAND = '''"""Trains.

  command.py --config=experiments/mnist.py
"""
from absl import flags
from qgan_jax import errors
from qgan_jax.config import flags as config_flags


def main(argv):
  values = flags.FlagValues()
  config_flags.define_flags(argv, values)
  experiment = config_flags.parse_flags(argv, values, __doc__)
  print(experiment.config.generator.bits.weights)


errors.run(main)
'''


def load(page):
  spec = importlib.util.spec_from_file_location(page.stem, page)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def parse(monkeypatch, *arguments):
  """What `parse_flags` makes of a command line, in flags of its own."""
  monkeypatch.chdir(ROOT)
  values = flags.FlagValues()
  config_flags.define_flags(arguments, values)
  return config_flags.parse_flags(arguments, values)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_a_page_is_valid_and_so_are_its_trials(page):
  module = load(page)
  trials = []
  module.sweep(trials.append)
  assert len(trials) == len(set(trials)) > 1
  configs = []
  for arg in [None, '', *trials]:
    config = module.get_config(arg)
    if config.data.source == 'folder':
      config.data.dir = '/a'
    configs.append(config_lib.resolve(config))
    config_lib.validate(configs[-1])
    assert configs[-1].experiment == page.stem
  assert configs[0] == configs[1]
  command = f'--config={page.stem}:'
  assert command in module.__doc__
  # The documented command is a valid one.
  documented = module.__doc__.split(command)[1].split()[0]
  config_lib.validate(config_lib.resolve(module.get_config(documented)))


def test_the_pages_are_those_that_are_promised():
  own = ('mnist', 'digits', 'fashion_mnist', 'cifar10')
  expected = {name: name for name in own}
  heroes = ('heroes', 'heroes_pairs', 'heroes_cycle')
  pictures = ('images', 'cifar_jpeg', *heroes, 'tiles')
  expected |= dict.fromkeys(pictures, 'folder:/a/b')
  on_mnist = ('vae_mnist', 'vae_gan_mnist', 'r3gan_mnist')
  expected |= dict.fromkeys(on_mnist, 'mnist')
  sources = {
    page.stem: config_lib.resolve(load(page).get_config('dir=/a/b')).data.source
    for page in PAGES
  }
  assert sources == expected


def test_overrides_come_last_and_others_follow(monkeypatch):
  experiment = parse(
    monkeypatch,
    '--config=experiments/mnist.py:bits=8,seed=3',
    '--config.bits=4',
    '--config.loss.name',
    'hinge',
    '--noconfig.data.standin',
  )
  config = experiment.config
  for network in (config.generator, config.discriminator):
    assert network.bits.to_dict() == {'weights': 4, 'activations': 4}
  assert (config.seed, config.loss.name) == (3, 'hinge')
  assert config.data.standin is False
  assert experiment.file == 'experiments/mnist.py'
  assert experiment.arg == 'bits=8,seed=3'
  assert experiment.overrides == {
    'bits': 4,
    'loss.name': 'hinge',
    'data.standin': False,
  }


MNIST = '--config=experiments/mnist.py'


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    ([], 'no experiment is given; say for example --config=mnist:bits=8'),
    (['--config'], 'Missing value|neither an experiment'),
    (['--config='], 'neither an experiment'),
    (['--config=experiments/mnits.py'], 'did you mean experiments/mnist.py'),
    (
      ['--config=mnits'],
      "package, cifar10, .*, vae_mnist; did you mean 'mnist'",
    ),
    (['--config=mnist.py'], f'file in {ROOT} nor one of'),
    (['--config=experiments'], 'is neither an experiment file'),
    (['--confg=x'], 'Did you mean: config'),
    ([MNIST, 'bits=8'], "unexpected argument 'bits=8'"),
    ([MNIST, '--config.bitz=8'], "'bitz'; did you mean 'bits'"),
    ([MNIST, '--config.g_norm=none'], 'say --config.generator.norm'),
    ([MNIST, '--config.generator=3'], 'is a group'),
    ([MNIST, '--config.steps=abc'], 'steps takes a whole number'),
    ([MNIST, '--config.steps', 'abc'], '--config.steps=abc'),
    ([MNIST, '--config.ema.decay=nan'], 'takes a finite number'),
    ([MNIST, '--config.batch_size=0'], 'batch_size=0'),
    (['--config.bits=4', MNIST], 'before a value for --config'),
    (
      ['--config=experiments/images.py'],
      'dir=PATH, for example --config=images:dir=',
    ),
    ([f'{MNIST}:bitz=8'], "'bitz'; did you mean 'bits'"),
    ([f'{MNIST}:bits=8,'], 'is not key=value'),
  ],
)
def test_what_is_wrong_is_one_line(monkeypatch, arguments, said):
  with pytest.raises(UserError, match=said) as caught:
    parse(monkeypatch, *arguments)
  assert '\n' not in str(caught.value)


def test_the_name_of_a_page_is_enough_anywhere(monkeypatch, tmp_path):
  there = parse(monkeypatch, '--config=experiments/mnist.py:bits=4')
  values = flags.FlagValues()
  monkeypatch.chdir(tmp_path)
  arguments = ['--config=mnist:bits=4', '--config.seed=3']
  config_flags.define_flags(arguments, values)
  here = config_flags.parse_flags(arguments, values)
  # What is recorded, and what trials are started with, holds elsewhere, too.
  assert (here.file, here.arg) == ('mnist', 'bits=4')
  assert config_lib.diff(there.config, here.config) == ['seed: 0 -> 3']


def test_a_page_of_ones_own_is_no_name(monkeypatch, tmp_path):
  (tmp_path / 'digits.py').write_text('1 / 0')
  monkeypatch.chdir(tmp_path)
  assert experiments.load('digits').get_config().experiment == 'digits'
  for file in 'digits.py', str(tmp_path / 'digits.py'):
    with pytest.raises(UserError, match='digits.py, line 1: ZeroDivisionErr'):
      experiments.load(file)


def test_a_page_that_returns_nothing_is_named(monkeypatch, tmp_path):
  page = tmp_path / 'mine.py'
  page.write_text('def get_config(arg=None): pass')
  with pytest.raises(UserError, match=r'mine.py.* returns no ConfigDict'):
    parse(monkeypatch, f'--config={page}')


@pytest.mark.parametrize(
  ('arguments', 'code', 'out', 'err'),
  [
    ([f'{MNIST}:bits=8', '--config.bits=4'], 0, '4\n', ''),
    (
      [f'{MNIST}:bitz=8'],
      2,
      '',
      "error: there is no config key 'bitz'; did you mean 'bits'?\n",
    ),
    (['--help'], 0, 'mnist:bits=8,seed=1', ''),
    (['--help_config'], 0, '  steps\n', ''),
    (
      ['--help_config', f'{MNIST}:steps=9', '--config.ema.decay=0.5'],
      0,
      'ema (ema.decay) = 0.5\n',
      '',
    ),
  ],
)
def test_in_a_process_of_its_own(tmp_path, arguments, code, out, err):
  command = tmp_path / 'command.py'
  command.write_text(COMMAND)
  done = subprocess.run(
    [sys.executable, command, *arguments],
    cwd=ROOT,
    env={'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert (done.returncode, done.stderr) == (code, err)
  assert out in done.stdout
