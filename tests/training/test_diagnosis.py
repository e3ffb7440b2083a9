"""The look at a state, against gradients taken by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_learned import leaves, make
from test_step import batch

from qgan_jax.precision import Precision, QuantizerSpec
from qgan_jax.training import step as step_lib
from qgan_jax.training.diagnosis import format_report, make_diagnose

UNIFORM = Precision(QuantizerSpec('uniform'), QuantizerSpec('affine'))


def networks(precision):
  """G and D as `make` has them."""
  captured = {}
  original = step_lib.make_step

  def capture(variant, networks, **kwargs):
    captured['networks'] = variant, networks
    return original(variant, networks, **kwargs)

  step_lib.make_step = capture
  try:
    state, step = make(precision, penalty='r1')
  finally:
    step_lib.make_step = original
  return state, step, captured['networks']


@pytest.fixture(scope='module')
def looked():
  state, step, made = networks(UNIFORM)
  diagnose = make_diagnose(*made)
  state = jax.device_get(
    state.replace(
      hyperparameters=state.hyperparameters._replace(
        variant={'penalty_weight': jnp.float32(2)}
      )
    )
  )
  before = jax.tree.map(np.copy, state)
  report = diagnose(state, batch())
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
    np.testing.assert_array_equal(a, b)
  return state, jax.jit(step), report


def test_every_quantized_tensor_is_in_the_report(looked):
  _, _, report = looked
  assert report.keys() == {
    f'{place}/{role}'
    for place in (
      'generator/Dense_0', 'discriminator/Dense_0', 'discriminator/Dense_1'
    )
    for role in ('weights', 'activations')
  }  # fmt: skip
  for place, numbers in report.items():
    assert 0 < numbers['sqnr_db'] < 60
    assert ('flips' in numbers) == place.endswith('weights')
    expected = place.startswith('discriminator') and place.endswith('weights')
    assert ('penalty_cosine' in numbers) == expected
  table = format_report(report)
  assert len(table.splitlines()) == 7
  assert 'gradient_cosine' in table


def test_cosines_are_those_of_steps_in_float_and_quantized(looked):
  """SGD's step is the gradient: two steps, and their angle."""
  state, step, report = looked

  def d_gradient(n, weight):
    bits = jax.tree.map(
      lambda _: jnp.float32(n), state.networks['discriminator'].bits
    )
    start = state.replace(
      networks={
        name: part.replace(bits=bits) for name, part in state.networks.items()
      },
      hyperparameters=state.hyperparameters._replace(
        variant={'penalty_weight': jnp.float32(weight)}
      ),
    )
    new = (
      step(start, batch())[0]
      .networks['discriminator']
      .params['Dense_1']['kernel']
    )
    old = state.networks['discriminator'].params['Dense_1']['kernel']
    return np.ravel(new - old).astype(np.float64)

  def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

  numbers = report['discriminator/Dense_1/weights']
  np.testing.assert_allclose(
    numbers['gradient_cosine'],
    cosine(d_gradient(3, 2), d_gradient(32, 2)),
    atol=1e-3,
  )
  penalties = [d_gradient(n, 2) - d_gradient(n, 0) for n in (3, 32)]
  np.testing.assert_allclose(
    numbers['penalty_cosine'], cosine(*penalties), atol=1e-3
  )
  assert numbers['gradient_cosine'] < 0.9999


def test_flips_are_those_of_the_next_update(looked):
  state, step, report = looked
  new, _ = step(state, batch())
  old = state.networks['discriminator'].params['Dense_1']['kernel']
  changed = []
  for w in (old, new.networks['discriminator'].params['Dense_1']['kernel']):
    scale = np.abs(w).max() / 3
    changed.append(np.rint(np.asarray(w) / scale))
  np.testing.assert_allclose(
    report['discriminator/Dense_1/weights']['flips'],
    np.mean(changed[0] != changed[1]),
  )


def test_a_float_network_has_nothing_to_report():
  state, _, made = networks(Precision())
  diagnose = make_diagnose(*made)
  assert diagnose(jax.device_get(state), batch()) == {}
  assert leaves(state.networks['generator'].params).size > 0
