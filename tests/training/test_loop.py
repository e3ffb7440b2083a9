import contextlib
import json
import os
import signal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qgan_jax import variants
from qgan_jax.data import Batches
from qgan_jax.precision import Bits, make_precision
from qgan_jax.training import devices, loop
from qgan_jax.training import state as state_lib
from qgan_jax.training import step as step_lib
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.tracking import Tracker
from qgan_jax.training.trainable import Trainable

KEY = jax.random.PRNGKey(0)
IMAGES = np.random.RandomState(0).randint(0, 256, (10, 4, 4, 1), np.uint8)
BATCHES = Batches(IMAGES, None, seed=0, batch_size=4)
D_STEPS = 2


class G(nn.Module):
  @nn.compact
  def __call__(self, z, labels=None, *, train=False):
    return jnp.tanh(nn.Dense(16)(z)).reshape(-1, 4, 4, 1)


class D(nn.Module):
  @nn.compact
  def __call__(self, x, labels=None, *, train=False):
    return nn.Dense(1)(x.reshape(len(x), -1))[:, 0]


def make(learning_rate=0.01):
  """A small quantized GAN: its state on the host, and its step."""
  precision = make_precision(
    weights='uniform',
    activations='affine',
    per_channel=True,
    ranges='moving',
    momentum=0.9,
    input_bits=8,
  )
  optimizer = optax.adam(learning_rate)
  networks = {
    'generator': Trainable(G(), precision, optimizer),
    'discriminator': Trainable(D(), precision, optimizer),
  }
  examples = {
    'generator': jnp.ones((4, 3)),
    'discriminator': step_lib.to_float(IMAGES[:4]),
  }
  state = state_lib.init_state(
    KEY,
    {
      name: state_lib.init_network(
        network.module, precision, optimizer, widths(8), KEY, examples[name]
      )
      for name, network in networks.items()
    },
    averaged=('generator',),
    hyperparameters={'penalty_weight': 0.0},
  )
  variant = variants.gan(G(), D(), latent_dim=3, d_steps=D_STEPS)
  step = step_lib.make_step(variant, networks)
  return jax.device_get(state), step


def widths(n):
  return Bits(np.float32(n), np.float32(n))


def with_bits(state, n):
  networks = {
    name: part.replace(bits=widths(n)) for name, part in state.networks.items()
  }
  return state.replace(networks=networks)


@pytest.fixture(scope='module')
def gan():
  state, step = make()
  return state, program(step)


def program(step, members=1):
  return devices.Program(step, devices.make_layout(members))


def train_all(folders, states, program, periodic=(), **kwargs):
  """Trains members, each in its folder."""
  defaults = {
    'total_steps': 9,
    'repeats': D_STEPS,
    'log_every': 3,
    'checkpoint_every': 4,
  }
  kwargs = defaults | kwargs
  with contextlib.ExitStack() as stack:
    members = [
      loop.Member(
        batches=BATCHES,
        checkpoints=Checkpoints(folder / 'checkpoints', keep=9),
        tracker=stack.enter_context(
          Tracker(
            folder,
            total_steps=kwargs['total_steps'],
            first_step=int(states[0].step),
            dataset='random',
            shown=folder is folders[0],
          )
        ),
        periodic=periodic,
      )
      for folder in folders
    ]
    return loop.train(states, program, members, **kwargs)


def train(folder, state, program, **kwargs):
  """Trains one, and returns its last state."""
  ended = train_all([folder], [state], program, **kwargs)
  assert not ended.problems
  return ended.states[0]


def assert_identical(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def log(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def undisturbed(gan, tmp_path_factory):
  folder = tmp_path_factory.mktemp('undisturbed')
  return train(folder, *gan, log_every=1)


def test_what_happens_when(gan, undisturbed, tmp_path):
  seen = []

  def look(step, state):
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(state))
    seen.append((step, int(state.step)))
    return {'extra': step}

  state, step_fn = gan
  end = train(tmp_path, state, step_fn, periodic=(loop.Periodic(5, look),))
  assert_identical(end, undisturbed)
  assert seen == [(5, 5), (9, 9)]
  assert Checkpoints(tmp_path / 'checkpoints').steps == (4, 8, 9)
  rows = log(tmp_path)
  assert [row['step'] for row in rows] == [3, 4, 5, 6, 8, 9, 9]
  assert [row['extra'] for row in rows if 'extra' in row] == [5, 9]


def test_the_step_gets_the_batches_of_its_number_and_a_row_is_a_mean(
  gan, tmp_path
):
  state, step_fn = gan
  state = step_fn.put([state])
  losses_by_step = []
  for i in range(6):
    images = np.stack([BATCHES.at(2 * i)[0], BATCHES.at(2 * i + 1)[0]])
    state, metrics = step_fn(state, step_fn.shard([{'images': images[None]}]))
    losses_by_step.append(step_fn.metrics([metrics])[0]['d_loss'][0])
  end = train(tmp_path, *gan, total_steps=6, checkpoint_every=6)
  assert_identical(end, step_fn.get(state)[0])
  rows = log(tmp_path)
  assert [row['step'] for row in rows] == [3, 6]
  for row, part in zip(
    rows, (losses_by_step[:3], losses_by_step[3:]), strict=True
  ):
    np.testing.assert_allclose(row['d_loss'], np.mean(part), rtol=1e-6)
    assert 'finite' not in row


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('at', [1, 4, 7, 9])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
  gan, undisturbed, tmp_path, number, at
):
  handler = signal.getsignal(number)

  def stop(step, state):
    if step == at:
      os.kill(os.getpid(), number)
    return {}

  state, step_fn = gan
  with pytest.raises(loop.Stopped, match=number.name) as stopped:
    train(tmp_path, state, step_fn, periodic=(loop.Periodic(1, stop),))
  # A signal during the last step's events has no next step to stop after.
  last = min(at + 1, 9)
  assert (stopped.value.step, stopped.value.signal) == (last, number)
  assert signal.getsignal(number) is handler
  step, state = Checkpoints(tmp_path / 'checkpoints').restore_latest(state)
  assert step == last
  assert_identical(train(tmp_path, state, step_fn), undisturbed)
  steps = [row['step'] for row in log(tmp_path)]
  assert steps == sorted(set(steps))


@pytest.fixture(scope='module')
def by_index():
  """A program on whose device the data set lies."""
  return devices.Program(
    make()[1], devices.make_layout(1), dataset={'images': IMAGES}
  )


def test_several_steps_in_a_call_make_the_same_run(
  gan, by_index, undisturbed, tmp_path
):
  state, one_by_one = gan
  seen = []

  def look(step, state):
    seen.append((step, int(state.step)))
    return {'extra': step}

  kwargs = {'checkpoint_every': 3, 'periodic': (loop.Periodic(3, look),)}
  end = train(tmp_path / 'a', state, by_index, steps_per_call=3, **kwargs)
  assert_identical(end, undisturbed)
  assert seen == [(3, 3), (6, 6), (9, 9)]
  train(tmp_path / 'b', state, one_by_one, **kwargs)
  rows, expected = log(tmp_path / 'a'), log(tmp_path / 'b')
  for row in (*rows, *expected):
    row.pop('steps_per_second', None)
  assert rows == expected


def test_a_signal_is_answered_after_the_call(
  gan, by_index, undisturbed, tmp_path
):
  def stop(step, state):
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)
    return {}

  kwargs = {'steps_per_call': 3, 'checkpoint_every': 9}
  with pytest.raises(loop.Stopped) as stopped:
    train(
      tmp_path, gan[0], by_index, periodic=(loop.Periodic(3, stop),), **kwargs
    )
  assert stopped.value.step == 6
  _, state = Checkpoints(tmp_path / 'checkpoints').restore_latest(gan[0])
  assert int(state.step) == 6
  assert_identical(train(tmp_path, state, by_index, **kwargs), undisturbed)


def test_calls_begin_at_multiples_of_their_length():
  assert list(loop.calls(0, 8, 4)) == [range(4), range(4, 8)]
  assert list(loop.calls(5, 7, 1)) == [range(5, 6), range(6, 7)]
  # A run that begins between two of them, after a NaN, and refits.
  singly = [range(i, i + 1) for i in range(12)]
  assert list(loop.calls(2, 8, 4)) == [*singly[2:4], range(4, 8)]
  planned = [range(4), *singly[4:8], range(8, 12)]
  assert list(loop.calls(0, 12, 4, {6, 8})) == planned
  # Stopped anywhere, it makes the calls that were left.
  for i, call in enumerate(planned):
    assert list(loop.calls(call.start, 12, 4, {6, 8})) == planned[i:]


def test_the_second_ctrl_c_ends_at_once(gan, tmp_path):
  def stop_twice(step, state):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    return {}

  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, *gan, periodic=(loop.Periodic(2, stop_twice),))
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize('steps_per_call', [1, 3])
def test_nan_names_the_tensor_and_keeps_the_state_before_it(
  steps_per_call, tmp_path
):
  # The second step's first update of D throws it to infinity.
  state, step = make(lambda count: jnp.where(count < D_STEPS, 0.01, 3e38))
  ended = train_all(
    [tmp_path],
    [state],
    program(step),
    checkpoint_every=3,
    steps_per_call=steps_per_call,
  )
  assert ended.states == [None]
  message = ended.problems[0]
  assert message.startswith('step 2 gave NaN or infinity in the gradient of ')
  assert 'discriminator/Dense_0/kernel' in message
  assert 'learning_rate' in message
  saved_step, saved = Checkpoints(tmp_path / 'checkpoints').restore_latest(
    state
  )
  assert int(saved.step) == saved_step == 1
  assert not saved.halted
  for leaf in jax.tree.leaves(saved):
    assert np.isfinite(leaf).all()


def test_a_member_with_nan_stops_alone(tmp_path):
  """Three members, bits and all else their own, one of which diverges."""
  state, step = make()
  starts = [with_bits(state, n) for n in (2, 32, 4)]
  generator = starts[1].networks['generator']
  nans = jax.tree.map(lambda x: np.full_like(x, np.nan), generator.params)
  poisoned = starts[1].replace(
    networks={
      **starts[1].networks,
      'generator': generator.replace(params=nans),
    }
  )
  folders = [tmp_path / name for name in 'abc']
  together = program(chex.assert_max_traces(step, n=1), members=3)
  ended = train_all(folders, [starts[0], poisoned, starts[2]], together)
  assert list(ended.problems) == [1]
  assert 'NaN' in ended.problems[1]
  assert ended.states[1] is None
  for i in (0, 2):
    alone = train(tmp_path / f'alone{i}', starts[i], program(step))
    assert_identical(ended.states[i], alone)
    rows, expected = log(folders[i]), log(tmp_path / f'alone{i}')
    for row in (*rows, *expected):
      row.pop('steps_per_second', None)
    assert rows == expected


def test_progress_goes_on_where_the_first_member_halts(tmp_path, capsys):
  state, step = make()
  generator = state.networks['generator']
  nans = jax.tree.map(lambda x: np.full_like(x, np.nan), generator.params)
  poisoned = state.replace(
    networks={**state.networks, 'generator': generator.replace(params=nans)}
  )
  folders = [tmp_path / name for name in 'abc']
  ended = train_all(
    folders, [poisoned, poisoned, state], program(step, members=3)
  )
  assert list(ended.problems) == [0, 1]
  assert 'step 9/9' in capsys.readouterr().err


def test_one_trace_serves_every_step_and_every_bit_width(tmp_path):
  state, step = make()
  step_fn = program(chex.assert_max_traces(step, n=1))
  ends = []
  for n in (2, 4, 8, 32):
    start = with_bits(state, n)
    ends.append(train(tmp_path / str(n), start, step_fn, total_steps=3))
  kernels = [
    end.networks['generator'].params['Dense_0']['kernel'] for end in ends
  ]
  assert len({kernel.tobytes() for kernel in kernels}) == 4


def test_a_step_that_moves_data_by_itself_is_refused(gan, tmp_path):
  state, step_fn = gan

  class Transfers(devices.Program):
    def __init__(self):
      vars(self).update(vars(step_fn))

    def __call__(self, states, batches):
      on_host = jax.tree.map(np.asarray, states)
      return super().__call__(on_host, batches)

  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    train(tmp_path, state, Transfers())


def test_singular_values(gan):
  state, _ = gan
  values = loop.singular_values(state)
  assert set(values) == {
    'sigma/generator/Dense_0', 'sigma/discriminator/Dense_0'
  }  # fmt: skip
  kernel = np.float64(state.networks['generator'].params['Dense_0']['kernel'])
  np.testing.assert_allclose(
    values['sigma/generator/Dense_0'],
    np.sqrt(np.linalg.eigvalsh(kernel @ kernel.T)[-1]),
    rtol=1e-5,
  )
