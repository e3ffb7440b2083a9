"""The whole of a run, by its commands, in processes of their own."""

import json
import os
import random
import re
import shutil
import signal
import socket
import time

from command_line import finish
import jax
import numpy as np
from PIL import Image
import pytest

from qgan_jax import artifacts
from qgan_jax import config as config_lib
from qgan_jax.runs import build
from qgan_jax.training.checkpoints import Checkpoints, saved_steps

STEPS = 32
# SGD with momentum: Adam's first steps are signs, which noise of 1e-7 turns.
STRING = (
  'bits=8,channels=8,batch_size=8,optimizer=momentum,learning_rate=0.01,'
  'penalty=none,penalty_weight=0,'
  f'steps={STEPS},log_every=4,sample_every=16,eval_every=16,'
  'checkpoint_every=2,logging.eval_samples=64,scores.samples=64'
)
DIGITS = f'--config=experiments/digits.py:{STRING}'


@pytest.fixture(scope='module')
def run(commands, tmp_path_factory):
  """A run that nothing disturbed: its folder, and what it printed."""
  workdir = tmp_path_factory.mktemp('runs') / 'undisturbed'
  out, err = finish(commands('main', DIGITS, f'--workdir={workdir}'))
  return workdir, out, err


def load(path):
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def gan(run):
  """The run's networks, its state before the first step, what draws."""
  record = load(run[0] / 'config.json')
  config = config_lib.from_json(json.dumps(record['config']))
  dataset = build.load_dataset(config, standin=False)
  setup = build.set_up(config, dataset)
  return setup, setup.init_state(), setup.sampler()


def last_state(workdir, like):
  step, state = Checkpoints(workdir / 'checkpoints').restore_latest(like)
  assert step == STEPS
  return state


def assert_identical(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def test_what_a_run_leaves_behind(run):
  workdir, out, err = run
  assert {path.name for path in workdir.iterdir()} == {
    'checkpoints', 'config.json', 'generator.qgan', 'metrics.jsonl',
    'precision.json', 'run.lock', 'samples',
    'scores.json', 'tensorboard',
  }  # fmt: skip
  assert 'generator: 43,273 parameters' in err
  assert re.search(r'discriminator +logit +weights +8 +lsq per', err)
  assert re.search(r'discriminator +\w+ +activations +8 +pixels +fixed', err)
  assert 'quantized from step 16 of 32\n' in err
  assert str(workdir / 'generator.qgan') in out
  table = load(workdir / 'precision.json')
  assert {row['from_step'] for row in table if row['quantizer']} == {16}
  assert {row['from_step'] for row in table if not row['quantizer']} == {None}

  record = load(workdir / 'config.json')
  assert record['dataset'] == 'digits'
  assert record['file'] == 'experiments/digits.py'
  assert record['arg'] == STRING
  assert record['config']['generator']['bits'] == {
    'weights': 8, 'activations': 8
  }  # fmt: skip
  assert record['versions']['jax'] == jax.__version__
  assert record['devices'] == ['cpu']

  scores = load(workdir / 'scores.json')
  for name in 'best', 'last':
    score = scores[name]
    assert score['reference'] == 'digits, held-out'
    assert score['weights'] == 'moving average'
    assert (score['num_real'], score['num_fake']) == (359, 64)
    assert score['seed'] == 0
    extractor = score['extractor']
    assert extractor['name'] == 'classifier-digits'
    assert re.fullmatch('[0-9a-f]{12}', extractor['hash'])
    assert {'resize', 'value_range', 'accuracy'} <= extractor.keys()
    assert {'frechet_distance', 'recall', 'coverage'} <= score.keys()
  assert scores['last']['step'] == STEPS
  sizes = scores['sizes']
  assert sizes['artifact_bytes'] == (workdir / 'generator.qgan').stat().st_size
  assert sizes['ratio'] > 3

  rows = [json.loads(x) for x in (workdir / 'metrics.jsonl').open()]
  evaluated = [r for r in rows if 'eval/frechet_distance_train' in r]
  assert [row['step'] for row in evaluated] == [16, 32]
  best = min(evaluated, key=lambda r: r['eval/frechet_distance_train'])
  assert scores['best']['step'] == best['step']
  logged = [row for row in rows if 'd_loss' in row]
  assert {4, 8, STEPS} <= {row['step'] for row in logged}
  assert 'steps_per_second' in logged[-1]
  assert any(name.startswith('sigma/') for row in rows for name in row)

  grids = sorted((workdir / 'samples').iterdir())
  assert [g.name for g in grids] == ['step_0000016.png', 'step_0000032.png']
  with Image.open(grids[0]) as picture:
    assert picture.size == (242, 242)
  assert list((workdir / 'tensorboard').iterdir())


def test_scores_before_anything_is_quantized_are_those_of_float(
  run, commands, tmp_path
):
  half = STRING.replace('bits=8', 'bits=32').replace(
    f'steps={STEPS}', f'steps={STEPS // 2}'
  )
  config = f'--config=experiments/digits.py:{half}'
  finish(commands('main', config, f'--workdir={tmp_path}'))

  def scored(folder):
    rows = [json.loads(x) for x in (folder / 'metrics.jsonl').open()]
    name = 'eval/frechet_distance_train'
    (score,) = [r[name] for r in rows if name in r and r['step'] == STEPS // 2]
    return score

  # The same weights, once in float and once with 8 bits that fit them.
  np.testing.assert_allclose(scored(run[0]), scored(tmp_path), rtol=0.03)


def test_the_artifact_is_the_generator_that_was_trained(run, gan):
  workdir, _, _ = run
  setup, like, sampler = gan
  step, state = Checkpoints(workdir / 'checkpoints').restore_best(like)
  assert step == STEPS  # Its last step was trained with the target's bits.
  packed, metadata = artifacts.read(workdir / 'generator.qgan')
  assert metadata['step'] == step
  assert metadata['dataset'] == 'digits'
  generator = setup.networks['generator']
  part = state.averaged('generator')
  latents = jax.random.normal(jax.random.PRNGKey(3), (64, 64))

  @jax.jit
  def draw(params):
    return generator.precision.apply(
      generator.module,
      {'params': params, **part.stats},
      part.ranges,
      part.bits,
      latents,
      learned=learned,
    )[0]

  params, learned = part.params, part.learned
  weights = generator.precision.quantize_weights(
    params, part.bits, learned=learned
  )
  got = artifacts.images(packed, latents)
  np.testing.assert_allclose(got, draw(weights), atol=1e-5)
  assert np.abs(got - draw(params)).max() > 1e-4  # Not of the float weights.

  # The bytes that training draws, of the latents that it draws them from.
  key = jax.random.PRNGKey(0)
  latents = np.stack(
    [jax.random.normal(jax.random.fold_in(key, i), (64,)) for i in range(8)]
  )
  drawn = sampler(state, 8)
  got = artifacts.to_uint8(artifacts.images(packed, latents))
  np.testing.assert_allclose(got.astype(int), drawn, atol=1)
  assert (got != drawn).mean() < 0.01


def test_sampling_needs_no_data(run, commands, tmp_path):
  artifact = shutil.copy(run[0] / 'generator.qgan', tmp_path)
  nowhere = str(tmp_path / 'nowhere')
  finish(
    commands(
      'sample', f'--artifact={artifact}', '--num=70', f'--out={tmp_path}/x.npz',
      cwd=tmp_path, TFDS_DATA_DIR=nowhere, QGAN_JAX_CACHE=nowhere,
    )
  )  # fmt: skip
  images = np.load(tmp_path / 'x.npz')['images']
  assert images.shape == (70, 28, 28, 1)
  assert images.std() > 0


def test_scores_are_had_again(run, commands, tmp_path):
  workdir, _, _ = run
  nearest = tmp_path / 'nearest.png'
  started = [
    commands('evaluate', f'--workdir={workdir}'),
    commands(
      'evaluate', f'--artifact={workdir}/generator.qgan', DIGITS,
      f'--nearest={nearest}',
    ),
    commands('evaluate', f'--workdir={workdir}', '--seed=1'),
  ]  # fmt: skip
  best, artifact, other = (
    json.loads(finish(process)[0]) for process in started
  )
  assert best == load(workdir / 'scores.json')['best']
  assert artifact['weights'] == 'as exported, drawn in jax'
  assert artifact['extractor'] == best['extractor']
  # Rows of a sample and its seven nearest training images: of noise, at 32
  # steps, all are further than held-out digits.
  assert artifact['data_copying'] < 0.1
  with Image.open(nearest) as picture:
    assert picture.size == (8 * 30 + 2, 8 * 30 + 2)
  # Other latents of the same generator.
  assert (best['latents_seed'], other['latents_seed']) == (0, 1)
  for scores in artifact, other:
    assert scores['frechet_distance'] != best['frechet_distance']
    np.testing.assert_allclose(
      scores['frechet_distance'], best['frechet_distance'], rtol=0.05
    )


def wait_for_step(process, workdir, step):
  """Waits until a run has saved a step, at most so many steps from its end."""
  folder, deadline = workdir / 'checkpoints', time.monotonic() + 200
  while time.monotonic() < deadline and process.poll() is None:
    names = os.listdir(folder) if folder.exists() else []
    if any(name.isdecimal() and int(name) >= step for name in names):
      return
    time.sleep(0.005)
  process.kill()
  raise AssertionError(f'no step {step}: {process.communicate()[1]}')


def damage(folder):
  """Flips a bit of a checkpoint."""
  largest = max(folder.rglob('*'), key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)


@pytest.mark.slow
def test_a_run_that_nothing_spared_ends_as_if_undisturbed(
  run, gan, commands, tmp_path
):
  chance = random.Random(0)
  checkpoints = tmp_path / 'checkpoints'
  arguments = ('main', DIGITS, f'--workdir={tmp_path}')
  for number, code in (
    (signal.SIGKILL, -signal.SIGKILL),
    (signal.SIGINT, 130),
    (signal.SIGKILL, -signal.SIGKILL),
    (signal.SIGTERM, 143),
  ):
    saved = max(saved_steps(checkpoints), default=0)
    process = commands(*arguments)
    # Not by a step that was there before: a signal would meet its start.
    wait_for_step(process, tmp_path, saved + 2)
    # A checkpoint takes about as long, so that some are caught half-written.
    time.sleep(chance.uniform(0, 0.1))
    process.send_signal(number)
    _, err = finish(process, code)
    if number != signal.SIGKILL:
      said = re.search(rf'stopped by {number.name} after step (\d+)', err)
      assert 'the same command goes on' in err
      assert Checkpoints(checkpoints).steps[-1] == int(said[1]) < STEPS

  before, newest = Checkpoints(checkpoints).steps[-2:]
  damage(checkpoints / str(newest) / 'state')
  _, err = finish(commands(*arguments))
  assert f'checkpoints/{newest} is damaged; going back to step {before}' in err
  assert f'resuming from step {before}' in err

  undisturbed = run[0]
  assert_identical(
    last_state(tmp_path, gan[1]), last_state(undisturbed, gan[1])
  )
  for name in 'best', 'last':
    expected = load(undisturbed / 'scores.json')[name]
    assert load(tmp_path / 'scores.json')[name] == expected
  packed = (undisturbed / 'generator.qgan').read_bytes()
  assert (tmp_path / 'generator.qgan').read_bytes() == packed
  rows = [json.loads(x) for x in (tmp_path / 'metrics.jsonl').open()]
  steps = [row['step'] for row in rows if 'd_loss' in row]
  assert steps == sorted(set(steps))


def test_one_process_works_in_a_folder_and_ends_where_that_vanishes(
  commands, tmp_path
):
  workdir = tmp_path / 'run'
  arguments = ('main', DIGITS, f'--workdir={workdir}')
  first = commands(*arguments)
  wait_for_step(first, workdir, 2)
  first.send_signal(signal.SIGSTOP)
  _, err = finish(commands(*arguments), 2)
  assert f'error: another process is at work in {workdir}' in err
  shutil.rmtree(workdir)
  first.send_signal(signal.SIGCONT)
  _, err = finish(first, 2)
  assert re.search(rf'error: .*{workdir}/', err)
  assert 'done in' not in err
  assert not workdir.exists()


def test_what_cannot_run_is_refused_in_a_line(run, commands, tmp_path):
  workdir, _, _ = run
  before = (workdir / 'config.json').read_bytes()
  (tmp_path / 'file').touch()
  four_bits = DIGITS.replace('bits=8', 'bits=4')
  twelve_images = DIGITS.replace('batch_size=8', 'batch_size=12')
  started = [
    commands('main', four_bits, f'--workdir={workdir}'),
    commands('main', DIGITS, f'--workdir={tmp_path}/file/run'),
    commands(
      'main',
      twelve_images,
      f'--workdir={tmp_path}/run',
      XLA_FLAGS='--xla_force_host_platform_device_count=8',
    ),
  ]
  other, in_the_way, devices = (finish(process, 2) for process in started)
  assert 'error: ' in other[1]
  assert 'holds a run with another config' in other[1]
  assert 'generator.bits.weights: 8 -> 4' in other[1]
  assert 'discriminator.bits.activations: 8 -> 4' in other[1]
  assert 'steps' not in other[1].split('What differs')[1]
  assert (workdir / 'config.json').read_bytes() == before
  said = rf'error: .*{tmp_path}/file/run: Not a directory; give another one'
  assert re.search(said, in_the_way[1])
  assert 'batch_size=12 does not divide over 8 devices' in devices[1]
  assert 'such as 16' in devices[1]
  assert not (tmp_path / 'run').exists()


def test_a_run_that_is_not_finite_stops_and_names_what(commands, tmp_path):
  wild = DIGITS.replace('learning_rate=0.01', 'learning_rate=1e25')
  _, err = finish(commands('main', wild, f'--workdir={tmp_path}'), 2)
  said = re.search(r'error: step (\d+) gave NaN or infinity in (.*);', err)
  assert re.search(r'the gradient of \w+/\w+', said[2])
  # The state before it, and nothing that could be taken for a result.
  assert (tmp_path / 'checkpoints' / str(int(said[1]) - 1)).exists()
  assert not (tmp_path / 'scores.json').exists()
  assert not (tmp_path / 'generator.qgan').exists()


def start_pair(commands, *arguments, **variables):
  """Two processes of one run, by the flags that a person gives."""
  with socket.create_server(('localhost', 0)) as server:
    address = f'localhost:{server.getsockname()[1]}'
  return [
    commands(
      'main', *arguments, f'--coordinator={address}', '--processes=2',
      f'--process={i}', **variables,
    )
    for i in (0, 1)
  ]  # fmt: skip


def test_two_processes_make_the_run_of_one(run, gan, commands, tmp_path):
  _, start, _ = gan
  pair = start_pair(commands, DIGITS, f'--workdir={tmp_path}/run')
  (out, _), (silent, _) = map(finish, pair)
  assert 'best step' in out
  assert 'best step' not in silent
  one, two = (
    last_state(workdir, start) for workdir in (run[0], tmp_path / 'run')
  )
  for name in 'generator', 'discriminator':
    before, expected, got = (
      np.concatenate([x.ravel() for x in jax.tree.leaves(s)])
      for s in (state.networks[name].params for state in (start, one, two))
    )
    change = np.linalg.norm(expected - before)
    assert change > 1e-3
    assert np.linalg.norm(got - expected) < 0.02 * change


def test_data_that_stands_in_is_refused_in_a_run_of_two(commands, tmp_path):
  pair = start_pair(
    commands,
    f'--config=experiments/mnist.py:{STRING}',
    f'--workdir={tmp_path}/run',
    TFDS_DATA_DIR=str(tmp_path),
    https_proxy='http://localhost:9',  # No network for downloads, …
    no_proxy='localhost',  # … and one for the processes.
  )
  outputs = [process.communicate(timeout=200) for process in pair]
  assert pair[0].returncode == 2
  assert pair[1].returncode != 0
  assert "error: The data set 'mnist' cannot be loaded" in outputs[0][1]
  assert not (tmp_path / 'run').exists()
