"""Learned quantizers where training has other bits than the target's."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_learned import LEARNED, make
from test_loop import BATCHES
from test_step import assert_close, batch, D, G, KEY, with_network

from qgan_jax.precision import Bits, Precision, QuantizerSpec
from qgan_jax.precision.replicas import Replicas
from qgan_jax.precision.schedule import Schedule
from qgan_jax.quantizers import by_name
from qgan_jax.training import devices, loop
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.refit import Refit
from qgan_jax.training.sampling import Sampler
from qgan_jax.training.state import average_of, init_network
from qgan_jax.training.tracking import Tracker
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import gan

INPUTS = gan(G(), D(), latent_dim=3).inputs
LATENTS = jax.random.normal(jax.random.PRNGKey(3), (64, 3))
IMAGES = jax.random.uniform(jax.random.PRNGKey(4), (64, 4, 4, 1), minval=-1)


def network(module, precision=LEARNED):
  return Trainable(module, precision, optax.sgd(0.1))


def refit(schedule, precision=LEARNED):
  networks = {
    'generator': network(G(), precision),
    'discriminator': network(D(), precision),
  }
  inputs = {'generator': (LATENTS,), 'discriminator': (IMAGES,)}
  return Refit(networks, schedule, inputs)


def moved(state, step, factor=30):
  """The state with weights that steps in float have made larger."""

  def larger(tree):
    return jax.tree.map(lambda x: factor * x, tree)

  def part(network):
    return network.replace(params=larger(network.params))

  return state.replace(
    step=jnp.int32(step),
    networks={name: part(x) for name, x in state.networks.items()},
    average={
      'generator': {
        **state.average['generator'],
        'params': larger(larger(state.average['generator']['params'])),
      }
    },
  )


def test_the_bits_of_the_next_step_are_what_quantizers_are_fitted_to():
  schedule = Schedule(start_step=4, anneal_steps=4, anneal_from=5)
  state = moved(make(LEARNED, schedule=schedule)[0], 4)
  found = refit(schedule).before_step(state)
  for part, params in (
    (found.networks['generator'], state.networks['generator'].params),
    (found.networks['discriminator'], state.networks['discriminator'].params),
    # An average has scales of its own.
    (found.averaged('generator'), state.average['generator']['params']),
  ):
    for layer, scales in part.learned['weights'].items():
      fitted = by_name('lsq', axis=-1).fit(
        params[layer]['kernel'], jnp.float32(5)
      )
      assert_close(scales, fitted, rtol=1e-5)
    assert (
      part.bits == state.networks['generator'].bits
    )  # The target's, as before.
  # Activations: D's second layer is given what its first one makes of images.
  scale = found.networks['discriminator'].learned['activations']['Dense_1']
  by_hand = (
    refit(schedule)
    .networks['discriminator']
    .precision.init(
      D(),
      {'params': state.networks['discriminator'].params},
      Bits(jnp.float32(5), jnp.float32(5)),
      IMAGES,
    )[1]
  )
  assert_close(scale, by_hand['activations']['Dense_1'], rtol=1e-5)
  # All else is as it was.
  assert_close(
    found.average['generator']['params'],
    state.average['generator']['params'],
    rtol=0,
  )
  assert_close(
    found.networks['generator'].params,
    state.networks['generator'].params,
    rtol=0,
  )
  assert found.step == 4


def test_the_step_gathers_nothing_from_other_devices():
  # Else the memory of each would grow with their number.
  schedule = Schedule(start_step=2, anneal_steps=4, anneal_from=5)
  state, step = make(LEARNED, schedule=schedule, replicas=Replicas('devices'))
  traced = jax.make_jaxpr(step, axis_env=[('devices', 256)])(state, batch())
  assert 'psum' in str(traced)
  assert 'all_gather' not in str(traced)


def test_it_is_due_where_a_step_quantizes_with_other_bits_than_before():
  schedule = Schedule(start_step=2, anneal_steps=4, anneal_from=5)
  state, _ = make(LEARNED, n=3)
  # Three bits: 5 from step 2 on, 4 from 4 on, 3 from 6 on.
  assert refit(schedule).steps(state, 20) == {2, 4, 6}
  assert refit(schedule).steps(state, 5) == {2, 4}
  assert refit(Schedule()).steps(state, 20) == frozenset()
  # Ranges from the least to the greatest value do not depend on bits.
  fixed = Precision(QuantizerSpec('uniform'), QuantizerSpec('affine'))
  assert refit(schedule, fixed).steps(make(fixed)[0], 20) == frozenset()
  clipped = Precision(activations=QuantizerSpec('affine', ranges='mse'))
  assert refit(schedule, clipped).steps(make(clipped)[0], 20) == {2, 4, 6}


def test_a_network_whose_bits_stay_keeps_what_it_has_learned():
  schedule = Schedule(start_step=2, anneal_steps=6, anneal_from=4)
  state = moved(make(LEARNED, n=3)[0], 8)
  four = Bits(jnp.float32(4), jnp.float32(4))
  state = with_network(
    state, 'generator', state.networks['generator'].replace(bits=four)
  )
  # Four bits are G's target from step 2 on; D's three begin at step 8.
  assert refit(schedule).steps(state, 20) == {2, 8}
  found = refit(schedule).before_step(state)
  assert_close(
    found.networks['generator'].learned,
    state.networks['generator'].learned,
    rtol=0,
  )
  assert_close(found.average, state.average, rtol=0)
  old, new = (
    s.networks['discriminator'].learned['weights']['Dense_0']['scale']
    for s in (state, found)
  )
  assert np.all(new > 10 * old)
  seen = refit(schedule).for_target(state)
  assert_close(
    seen.networks['generator'].learned,
    state.networks['generator'].learned,
    rtol=0,
  )
  assert np.any(
    seen.networks['discriminator'].learned['weights']['Dense_0']['scale'] != old
  )


def test_bits_that_fall_from_the_first_step_on_are_fitted_when_they_fall():
  state, _ = make(LEARNED, n=3)
  schedule = Schedule(anneal_steps=4, anneal_from=5)
  assert refit(schedule).steps(state, 20) == {2, 4}


def test_clipped_ranges_are_those_of_the_bits_too():
  precision = Precision(
    activations=QuantizerSpec('affine', ranges='mse'), input_bits=1
  )
  schedule = Schedule(start_step=4)
  state = moved(make(precision, n=2, schedule=schedule)[0], 4)
  part = state.networks['discriminator']
  wide = {path: 100 * x for path, x in part.ranges.items()}
  state = with_network(state, 'discriminator', part.replace(ranges=wide))
  found = (
    refit(schedule, precision)
    .before_step(state)
    .networks['discriminator']
    .ranges
  )
  expected, _ = precision.init(
    D(), {'params': state.networks['discriminator'].params}, part.bits, IMAGES
  )
  assert_close(found, expected, rtol=1e-5)


def sampler(schedule, precision=LEARNED):
  return Sampler('generator', network(G(), precision), schedule, INPUTS)


@pytest.mark.parametrize('n', [8, 4])
@pytest.mark.parametrize(
  'schedule', [Schedule(start_step=9), Schedule(anneal_steps=99, anneal_from=9)]
)
def test_what_is_drawn_on_the_way_has_the_targets_bits_and_its_own_scales(
  n, schedule
):
  state = moved(make(LEARNED, n=n)[0], 9, factor=2)
  drawn = sampler(schedule)(state, 64)
  weights = state.average['generator']['params']['Dense_0']
  scales = sampler(schedule).quantized(state).learned['weights']['Dense_0']
  assert_close(
    scales,
    by_name('lsq', axis=-1).fit(weights['kernel'], jnp.float32(n)),
    rtol=1e-5,
  )
  in_float = sampler(schedule, Precision())(state, 64)
  unfitted = sampler(Schedule())(state, 64)

  def distance(images):
    return np.abs(images.astype(int) - in_float).mean()

  # At 8 bits it is as good as the network in float; at 4, near.
  assert distance(drawn) < {8: 2, 4: 20}[n]
  assert distance(unfitted) > 3 * distance(drawn)
  # Where the target's bits are trained, what they have learned is right.
  later = state.replace(step=jnp.int32(10 if schedule.start_step else 100))
  assert (
    sampler(schedule).quantized(later).learned
    is later.average['generator']['learned']
  )


def test_the_state_itself_is_not_touched_by_a_look_at_it():
  schedule = Schedule(start_step=9)
  state = moved(make(LEARNED)[0], 5)
  before = jax.tree.map(np.asarray, state)
  sampler(schedule)(state, 8)
  seen = refit(schedule).for_target(state)
  assert_close(state, before, rtol=0)
  average = sampler(schedule).quantized(state)
  assert_close(
    seen.average['generator']['learned']['weights'],
    average.learned['weights'],
    rtol=1e-5,
  )
  at_target = state.replace(step=jnp.int32(10))
  assert_close(refit(schedule).for_target(at_target), at_target, rtol=0)


class WithBatchNorm(nn.Module):
  @nn.compact
  def __call__(self, z, labels=None, *, train=False):
    x = nn.Dense(8, name='first')(z)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
    return jnp.tanh(nn.Dense(16, name='second')(x)).reshape(-1, 4, 4, 1)


def test_batch_statistics_are_those_of_the_average_as_it_is_quantized():
  precision = Precision(QuantizerSpec('uniform', -1))
  g = network(WithBatchNorm(), precision)
  bits = Bits(jnp.float32(2), jnp.float32(32))
  part = init_network(g.module, precision, g.optimizer, bits, KEY, LATENTS)
  state, _ = make(precision)
  average = average_of(part)
  average['params'] = jax.tree.map(lambda x: 2 * x, average['params'])
  state = with_network(state, 'generator', part).replace(
    average={'generator': average}
  )
  found = Sampler('generator', g, Schedule(), INPUTS).quantized(state)
  # Latents are standard normal, so the features of a linear layer are known.
  w = np.float64(average['params']['first']['kernel'])
  scale = np.abs(w).max(0)  # 2 bits: −1, 0 and 1 times it.
  w = np.rint(w / scale) * scale
  stats = found.variables['batch_stats']['BatchNorm_0']
  np.testing.assert_allclose(stats['mean'], 0, atol=0.2)
  np.testing.assert_allclose(stats['var'], (w**2).sum(0), rtol=0.15, atol=1e-6)


def train(folder, states, step, refits, total_steps=8):
  """Trains members, each in its folder; returns the states."""
  with contextlib.ExitStack() as stack:
    members = [
      loop.Member(
        batches=BATCHES,
        checkpoints=Checkpoints(folder / str(i), keep=9),
        tracker=stack.enter_context(
          Tracker(
            folder / str(i),
            total_steps=total_steps,
            first_step=int(states[0].step),
            dataset='random',
          )
        ),
      )
      for i in range(len(states))
    ]
    ended = loop.train(
      states,
      devices.Program(step, devices.make_layout(len(states))),
      members,
      total_steps=total_steps,
      repeats=1,
      log_every=4,
      checkpoint_every=4,
      steps_per_call=4,
      refit=refits,
    )
  assert not ended.problems
  return ended.states


def test_members_start_again_when_their_own_bits_change(tmp_path):
  schedule = Schedule(start_step=2, anneal_steps=4, anneal_from=5)
  refits = refit(schedule)
  # Both start at step 2; three bits fall at 4 and 6, four bits at 6 alone.
  states, steps = zip(
    *(make(LEARNED, n=n, seed=n, schedule=schedule) for n in (3, 4)),
    strict=True,
  )
  states = [jax.device_get(state) for state in states]
  together = train(tmp_path / 'together', states, steps[0], refits)
  for state, other in zip(states, together, strict=True):
    step = jax.jit(steps[0])
    due = refits.steps(state, 8)
    for i in range(8):
      if i in due:
        state = refits.before_step(state)
      images, _ = BATCHES.at(i)
      state, _ = step(state, {'images': images[None]})
    assert_close(other, state, rtol=1e-4, atol=1e-5)
  # Stopped just before a refit, a run goes on as if it had not been.
  assert 4 in refits.steps(states[0], 8)
  half = Checkpoints(tmp_path / 'together' / '0').restore(4, states[0])
  again = train(tmp_path / 'again', [half], steps[0], refits)
  for a, b in zip(
    jax.tree.leaves(again[0]), jax.tree.leaves(together[0]), strict=True
  ):
    np.testing.assert_array_equal(a, b)
