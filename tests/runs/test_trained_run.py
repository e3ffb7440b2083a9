"""A run quantized after training, and its networks by the call in Python."""

import types

import jax
from ml_collections import FrozenConfigDict
import numpy as np
import pytest
import tiny_run

from qgan_jax.post_training import quantize
from qgan_jax.runs import build, trained


def test_the_command_and_the_call_do_the_same():
  config = tiny_run.make_config('norm=batch,bits=32')
  setup = build.set_up(config, tiny_run.make_dataset())
  state = setup.init_state()
  variables = {
    name: {'params': part.params, **part.stats}
    for name, part in state.networks.items()
  }
  latents = np.random.default_rng(0).standard_normal((100, 64), np.float32)
  images = np.zeros((100, 8, 8, 1), np.float32)
  run = types.SimpleNamespace(
    setup=setup,
    state=state,
    inputs={'generator': (latents,), 'discriminator': (images,)},
    initial_state=lambda quantized: quantized.init_state(variables),
  )
  _, result = trained.quantize_state(
    run,
    trained.quantized_config(
      config, w_bits=3, a_bits=3, quantizer='lsq', rules=None,
      activation_quantizer='affine', dynamic=False,
    ),
    method='mse', calibration='mse', bias_correction=True, rounding_steps=0,
  )  # fmt: skip
  part = result.networks['generator']
  module = setup.networks['generator'].module
  before = variables['generator']
  network = quantize((module, before), bit_width=3, calibrate=latents)
  assert part.ranges and part.learned['weights']
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    {'params': part.params, **part.stats, 'ranges': part.ranges,
     'learned': part.learned},
    {**network.variables, 'ranges': network.ranges,
     'learned': network.learned},
  )  # fmt: skip
  # Both have moved what training left, biases and statistics.
  moved = jax.tree.map(
    lambda x, y: bool(np.any(x != y)),
    before['batch_stats'], part.stats['batch_stats'],
  )  # fmt: skip
  assert all(jax.tree.leaves(moved))
  assert np.any(part.params['up0']['bias'] != before['params']['up0']['bias'])


@pytest.mark.parametrize('dynamic', [False, True])
def test_ranges_are_those_measured_unless_they_are_dynamic(dynamic):
  """Even of a run with `momentum=0`, in which each batch has its own range."""
  given = tiny_run.make_config('norm=batch,bits=32')
  precision = given.to_dict()['precision'] | {'momentum': 0.0}
  config = trained.quantized_config(
    FrozenConfigDict(given.to_dict() | {'precision': precision}),
    w_bits=3, a_bits=3, quantizer='lsq', rules=None,
    activation_quantizer='affine', dynamic=dynamic,
  )  # fmt: skip
  table = build.set_up(config, tiny_run.make_dataset()).table
  ranges = {row.ranges for row in table if row.role == 'activations'}
  assert ranges - {'fixed'} == {'dynamic' if dynamic else 'moving'}
