"""What `build` makes of a config whose networks are in float."""

import dataclasses
import re

import jax
import numpy as np
import tiny_run

from qgan_jax.precision import Precision
from qgan_jax.runs import build
from qgan_jax.training import devices


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
