import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision import Bits
from qgan_jax.precision.schedule import Schedule


def widths(schedule, target, steps):
  at = jax.jit(schedule.bits_at)
  return [float(at(jnp.float32(target), jnp.int32(step))) for step in steps]


def test_quantized_from_a_step_on():
  assert widths(Schedule(start_step=3), 4, range(6)) == [32, 32, 32, 4, 4, 4]


def test_bits_fall_one_at_a_time_in_equal_stretches():
  schedule = Schedule(start_step=2, anneal_steps=8, anneal_from=8)
  assert widths(schedule, 4, range(13)) == (
    [32] * 2 + [8, 8, 7, 7, 6, 6, 5, 5] + [4] * 3
  )
  assert widths(schedule, 10, range(2, 5)) == [10] * 3
  assert widths(schedule, 32, range(5)) == [32] * 5


def test_sparsity_is_the_cubic_of_the_paper():
  schedule = Schedule(prune_start=10, prune_steps=100)
  for step in (0, 10, 35, 60, 109, 110, 500):
    t = min(max((step - 10) / 100, 0), 1)
    expected = 0.8 + (0 - 0.8) * (1 - t) ** 3  # Eq. 1 with s_i = 0.
    got = schedule.sparsity_at(jnp.float32(0.8), jnp.int32(step))
    np.testing.assert_allclose(got, expected, atol=1e-6)
  at_once = Schedule(prune_start=5)
  assert [float(at_once.sparsity_at(0.5, s)) for s in (4, 5)] == [0, 0.5]


def test_one_trace_serves_all_steps_and_every_structure():
  schedule = Schedule(start_step=2, anneal_steps=4)
  traces = []

  @jax.jit
  def run(bits, step):
    traces.append(1)
    return schedule.at(bits, step), schedule.refits(bits, step)

  bits = Bits(
    {'a': jnp.float32(6), 'b': jnp.float32(8)}, jnp.float32(8), None, None
  )
  seen = [run(bits, jnp.int32(step)) for step in range(8)]
  assert len(traces) == 1
  assert [float(b.weights['a']) for b, _ in seen] == [32, 32, 8, 8, 7, 7, 6, 6]
  assert [float(b.activations) for b, _ in seen] == [32, 32] + [8] * 6
  changed = [bool(changed) for _, changed in seen]
  assert changed == [False, False, True, False, True, False, True, False]


def test_nothing_is_refitted_in_float():
  schedule = Schedule(start_step=2)
  bits = Bits(jnp.float32(4), jnp.float32(8))
  refits = [bool(schedule.refits(bits, jnp.int32(s))) for s in range(4)]
  assert refits == [False, False, True, False]


def test_a_run_starts_with_the_bits_of_its_first_quantized_step():
  bits = Bits(jnp.float32(4), jnp.float32(8))
  for start in (0, 5):
    schedule = Schedule(start_step=start, anneal_steps=8)
    found = schedule.fitted_to(bits, 0)
    assert (float(found.weights), float(found.activations)) == (8, 8)
    assert bool(schedule.refits(bits, jnp.int32(start))) == (start > 0)
    assert bool(schedule.is_on_the_way(bits, jnp.int32(0)))
  at_once = Schedule(start_step=5)
  assert at_once.fitted_to(bits, 0) == bits
  assert not at_once.is_on_the_way(bits, jnp.int32(0))


def test_the_default_changes_nothing():
  bits = Bits(jnp.float32(3), {'a': jnp.float32(-4)})
  assert Schedule().at(bits, jnp.int32(0)) is not None
  assert Schedule().at(bits, jnp.int32(7)) == bits
