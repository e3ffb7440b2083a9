"""Whole sweeps, by their command, in processes of their own."""

import json
import os
from pathlib import Path
import re
import shlex
import signal
import time

from command_line import finish, parent
import jax
import numpy as np
import pytest

from qgan_jax import config as config_lib
from qgan_jax.runs import build
from qgan_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[1]
# Long enough to be killed in.
TINY = (
  'channels=8,batch_size=8,optimizer=momentum,learning_rate=0.01,'
  'penalty=none,penalty_weight=0,steps=60,log_every=4,sample_every=20,'
  'eval_every=20,checkpoint_every=2,logging.eval_samples=64,scores.samples=64'
)
DIGITS = f'--config=experiments/digits.py:{TINY}'
MNIST = '--config=experiments/mnist.py'


@pytest.fixture
def commands(commands):
  """Starts a sweep, or what `module` names."""
  return lambda *arguments, module='sweep', **variables: commands(
    module, *arguments, **variables
  )


def load(path):
  return json.loads(path.read_text())


def last_state(workdir):
  config = config_lib.from_json(
    json.dumps(load(workdir / 'config.json')['config'])
  )
  dataset = build.load_dataset(config, standin=False)
  shapes = build.set_up(config, dataset).state_shapes()
  step, state = Checkpoints(workdir / 'checkpoints').restore_latest(shapes)
  assert step == 60
  return state


def assert_same_end(workdir, other):
  for a, b in zip(
    jax.tree.leaves(last_state(workdir)),
    jax.tree.leaves(last_state(other)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  assert load(workdir / 'scores.json') == load(other / 'scores.json')


def process_in(workdir):
  """The process that works in a run's folder, once it has saved something."""
  deadline = time.monotonic() + 200
  while time.monotonic() < deadline:
    folder = workdir / 'checkpoints'
    if folder.exists() and any(n.isdecimal() for n in os.listdir(folder)):
      for proc in Path('/proc').iterdir():
        try:
          line = (proc / 'cmdline').read_bytes().decode().split('\0')
        except (OSError, UnicodeDecodeError):
          continue
        if f'--workdir={workdir}' in line and 'qgan_jax.main' in line:
          return int(proc.name)
    time.sleep(0.02)
  raise AssertionError(f'nothing works in {workdir}')


@pytest.mark.slow
def test_a_sweep_of_which_a_trial_and_then_all_was_killed(commands, tmp_path):
  folder = tmp_path / 'sweep'
  arguments = (DIGITS, '--sweep=bits=8,4', '--parallel=2')
  killed, other = folder / 'bits=8', folder / 'bits=4'
  process = commands(*arguments, f'--workdir={folder}')
  running = process_in(killed)
  _, err = finish(commands(*arguments, f'--workdir={folder}'), 2)
  assert 'another sweep is at work' in err
  os.kill(running, signal.SIGKILL)
  process_in(other)
  while load(folder / 'states.json')['bits=8']['attempts'] < 2:
    assert process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  out, err = finish(process, 130)
  assert 'bits=8: waiting: ended by SIGKILL' in err
  resume = f'--resume={folder} --parallel=2'
  assert f'go on: python -m qgan_jax.sweep {resume}\n' in err
  time.sleep(0.1)
  for path in Path('/proc').glob('[0-9]*/cmdline'):
    try:
      assert str(folder) not in path.read_text()
    except OSError:
      continue

  out, err = finish(commands(f'--resume={folder}', '--parallel=2'))
  lines = out.splitlines()
  assert [line.split()[0] for line in lines] == ['trial', 'bits=8', 'bits=4']
  assert all(line.split()[-1] == 'done' for line in lines[1:])
  assert load(folder / 'states.json')['bits=8']['attempts'] == 3

  # The command that is printed, alone, gives the same.
  first = load(folder / 'sweep.json')['trials'][0]
  variable, *command = shlex.split(first['command'])
  assert variable == 'NPROC=1'
  assert command[:3] == ['python', '-m', 'qgan_jax.main']
  assert command[-1] == f'--workdir={killed}'
  finish(
    commands(
      *command[3:-1], f'--workdir={tmp_path}/alone', module='main', NPROC='1'
    )
  )
  assert_same_end(killed, tmp_path / 'alone')

  # Again, and nothing is missing; another one is refused.
  before = (folder / 'bits=4' / 'log.txt').read_bytes()
  finish(commands(*arguments, f'--workdir={folder}'))
  assert (folder / 'bits=4' / 'log.txt').read_bytes() == before
  _, err = finish(
    commands(
      DIGITS, '--sweep=bits=8,2', '--config.ema.decay=0.9',
      f'--workdir={folder}',
    ),
    2,
  )  # fmt: skip
  assert 'holds another sweep' in err
  differs = err.partition('What differs: ')[2].strip().split('; ')
  assert differs == ['- bits=4', '+ bits=2', 'bits=8: ema.decay: 0.999 -> 0.9']


@pytest.mark.ray
@pytest.mark.slow
def test_two_ray_nodes_of_which_a_worker_was_killed(commands, tmp_path):
  from ray import cluster_utils

  cluster = cluster_utils.Cluster(
    initialize_head=True, head_node_args={'num_cpus': 1}
  )
  try:
    cluster.add_node(num_cpus=1)
    folder = tmp_path / 'sweep'
    killed = folder / 'bits=8'
    process = commands(
      DIGITS, '--sweep=bits=8,4,32', '--launcher=ray',
      f'--ray_address={cluster.address}', f'--workdir={folder}',
    )  # fmt: skip
    running = process_in(killed)
    # Its worker: Ray loses it and the trial with it, in mid-trial.
    os.kill(parent(running), signal.SIGKILL)
    out, err = finish(process)
  finally:
    cluster.shutdown()
  assert 'bits=8: waiting: its machine or its worker was lost' in err
  # Ray may say something before the table.
  assert [line.split()[-1] for line in out.splitlines()[-3:]] == ['done'] * 3
  states = load(folder / 'states.json')
  assert {name: state['attempts'] for name, state in states.items()} == {
    'bits=8': 2,
    'bits=4': 1,
    'bits=32': 1,
  }
  # It went on from its checkpoint, and ends as if nothing had been.
  alone = tmp_path / 'alone'
  command = shlex.split(load(folder / 'sweep.json')['trials'][0]['command'])
  finish(
    commands(*command[4:-1], f'--workdir={alone}', module='main', NPROC='1')
  )
  assert_same_end(killed, alone)


def test_a_population_is_one_command(commands, tmp_path):
  arguments = (
    DIGITS, '--sweep=bits=8,4', '--layout=population', f'--workdir={tmp_path}'
  )  # fmt: skip
  process = commands(*arguments)
  log = tmp_path / 'population.log'
  while not (log.exists() and 'program 1 of 1' in log.read_text()):
    assert process.poll() is None
    time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  _, err = finish(process, 130)
  resume = f'--resume={tmp_path} --layout=population'
  assert f'go on: python -m qgan_jax.sweep {resume}\n' in err
  out, _ = finish(commands(*resume.split()))
  assert [line.split()[-1] for line in out.splitlines()[1:]] == ['done'] * 2
  for name in 'bits=8', 'bits=4':
    scores = load(tmp_path / name / 'scores.json')
    assert f'{scores["best"]["frechet_distance"]:.2f}' in out
    assert (tmp_path / name / 'generator.qgan').exists()
  assert 'program 1 of 1: 2 trials' in (tmp_path / 'population.log').read_text()


def test_what_cannot_be_had_is_said_once(commands, tmp_path):
  process = commands(
    f'{MNIST}:steps=10',
    '--sweep=bits=8,4',
    f'--workdir={tmp_path}/sweep',
    TFDS_DATA_DIR=str(tmp_path),
    https_proxy='http://localhost:9',
  )
  _, err = finish(process, 2)
  assert "error: The data set 'mnist' cannot be loaded" in err
  assert 'the others were not started' in err
  assert not (tmp_path / 'sweep/bits=8/config.json').exists()
  assert not (tmp_path / 'sweep/bits=4').exists()


def test_the_experiments_own_sweep(commands, tmp_path):
  out, err = finish(commands(MNIST, '--dry_run'))
  lines = out.splitlines()
  assert len(lines) == 21
  workdir = re.search('--workdir=(.*)/bits=32,seed=0$', lines[0])[1]
  assert re.fullmatch(r'runs/sweep-mnist-[\w,]+-[0-9a-f]{8}', workdir)
  name = 'g_w_bits=1,d_w_bits=8,a_bits=8,seed=2'
  assert lines[-1] == (
    f'NPROC=1 python -m qgan_jax.main {MNIST}:{name} '
    f'--config.data.standin=False --workdir={workdir}/{name}'
  )
  assert not (ROOT / workdir).exists()


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    (['--sweep=bits=8'], 'no experiment is given'),
    ([MNIST, '--sweep=bitz=8,4'], "trial 'bitz=8': .*did you mean 'bits'"),
    ([MNIST, '--sweep=bits=8,17'], "trial 'bits=17': .*bits.*17"),
    ([MNIST, '--sweep=bits=8,8'], "trials 'bits=8' and 'bits=8' are the same"),
    (
      [MNIST, '--sweep=bits=8;g_bits=4,8;d_bits=8'],
      None,
    ),
    ([f'{MNIST}:seed=1', '--sweep=seed=1,2'], "'seed' is given twice"),
    ([MNIST, '--sweep=bits=1', '--config.bits=2'], '--config.bits would hold'),
    ([MNIST, '--sweep=bits'], "'bits' in 'bits' is not key=value"),
    ([MNIST, '--sweeep=bits=1'], 'Did you mean: sweep'),
    (['--resume=nowhere'], 'nowhere is not the folder of a sweep'),
    (['--resume=nowhere', MNIST], 'give nothing of them'),
    (['--config=experiments/images.py'], 'Say dir=PATH'),
  ],
)
def test_what_is_wrong_is_said_before_anything_starts(
  commands, arguments, said
):
  code = 2 if said else 0
  _, err = finish(commands(*arguments, '--dry_run'), code)
  assert re.search(f'^error: .*{said}' if said else '^$', err)
