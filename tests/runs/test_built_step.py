"""What `build` makes of a config: its step, and its look at a state."""

import dataclasses
import re

import chex
import jax
import numpy as np
import tiny_run

from qgan_jax.precision import Precision
from qgan_jax.runs import build
from qgan_jax.training import devices, step


def build_step(arg, precision=None, state=None):
  """A config's state, and the text of its whole step."""
  config, dataset = tiny_run.make_config(arg), tiny_run.make_dataset()
  setup = build.set_up(config, dataset, devices.make_layout(1))
  if precision is not None:
    networks = {
      name: dataclasses.replace(network, precision=precision)
      for name, network in setup.networks.items()
    }
    setup = dataclasses.replace(setup, networks=networks)
  state = state or setup.init_state()
  program = setup.program()
  batch = program.shard(
    [{'images': dataset.train_images[None, None, : tiny_run.BATCH]}]
  )
  jaxpr = jax.make_jaxpr(program)(program.put([state]), batch)
  return state, re.sub('0x[0-9a-f]+', '', str(jaxpr))


def test_flips_are_of_an_update_at_the_decayed_learning_rate():
  """SGD from 2-bit `uniform`, whose codes are −1, 0 and 1 in units of max|w|.

  After three of four steps of a linear decay, the step had half of the rate.
  """
  config = tiny_run.make_config(
    'steps=4,learning_rate_decay=linear,quantizer=uniform,per_channel=false,'
    'w_bits=2,activation_quantizer=affine,penalty=none,start_step=0,'
    'd_learning_rate=9'
  )
  setup = build.set_up(config, tiny_run.make_dataset())
  state = setup.init_state().replace(step=np.int32(3))
  images = tiny_run.make_dataset().train_images[None, : tiny_run.BATCH]
  report = setup.diagnosis()(state, {'images': images})

  def flips(rate):
    take = step.make_step(
      setup.variant, setup.networks, rate_at=lambda step: rate
    )
    new, _ = jax.jit(take)(state, {'images': images})
    before, after = (
      np.rint(kernel / np.abs(kernel).max())
      for kernel in (
        x.networks['discriminator'].params['down0']['kernel']
        for x in (state, new)
      )
    )
    return np.mean(before != after)

  found = report['discriminator/down0/weights']['flips']
  np.testing.assert_allclose(found, flips(0.5), atol=1e-3)
  assert abs(flips(1.0) - found) > 0.01


def test_32_bits_are_the_unquantized_program():
  arg = 'norm=batch,penalty=r1,bits=32'
  state, program = build_step(arg)
  expected_state, expected = build_step(arg, Precision())
  assert program == expected
  assert state.networks['generator'].ranges == {}
  leaves, expected_leaves = map(jax.tree.leaves, (state, expected_state))
  for leaf, expected_leaf in zip(leaves, expected_leaves, strict=True):
    np.testing.assert_array_equal(leaf, expected_leaf)
  # The comparison sees a quantizer where there is one.
  quantized = build_step(f'{arg},w_bits=8,a_bits=32', state=state)[1]
  assert 'round' in quantized
  assert 'round' not in program


def test_learned_quantizers_start_at_the_bits_of_the_first_step():
  # Fitted anew before it, those of a network with BatchNorm would see features
  # that its initial statistics do not normalize.
  text = (
    'quantizer=lsq,activation_quantizer=lsq,g_norm=batch,start_step=0,steps=9'
  )
  annealed, eight = (
    build.set_up(tiny_run.make_config(string), tiny_run.make_dataset())
    for string in (f'{text},bits=2,anneal_steps=8', f'{text},bits=8')
  )
  state = annealed.init_state()
  fitted = eight.init_state().networks
  for name, part in state.networks.items():
    chex.assert_trees_all_close(part.learned, fitted[name].learned, rtol=1e-6)
  assert 0 not in annealed.refit().steps(state, 9)
