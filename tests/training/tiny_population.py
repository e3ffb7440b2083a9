"""Trains populations of tiny GANs in every layout: a program of its own.

python tiny_population.py OUT.npz
"""

import sys

import chex
import jax
import numpy as np
import tiny_run

from qgan_jax.data import Batches
from qgan_jax.runs import build
from qgan_jax.training import devices, loop
from qgan_jax.training import step as step_lib

STEPS = 3
LOOKED_AT = 2  # The member that is compared: in no layout the first or last.
# In float: rounding would turn the last digits into whole steps.
ARG = 'norm=batch,penalty=r1,conditional=true,bits=32'


def train(layout):
  """The states of all members after some steps, by a step traced once."""
  chex.clear_trace_counter()
  dataset = tiny_run.make_dataset()
  # In one call as well as in as many: members in turn take the latter.
  each = 1 if layout.rounds > 1 else STEPS
  configs = [
    tiny_run.make_config(f'{ARG},seed={seed},steps_per_call={each}')
    for seed in range(layout.members)
  ]
  setup = build.set_up(configs[0], dataset, layout)
  program = setup.program()
  members = [build.set_up(config, dataset) for config in configs]
  states = program.put(setup.init_states(members))
  for steps in loop.calls(0, STEPS, setup.steps_per_call):
    batches = [
      loop.stack_batches(
        Batches(
          dataset.train_images,
          dataset.train_labels,
          seed=config.seed,
          batch_size=tiny_run.BATCH,
        ),
        steps,
        1,
        by_index=program.by_index,
      )
      for config in configs
    ]
    states, _ = program(states, program.shard(batches))
  return program.get(states)


def main(out):
  real = step_lib.make_step
  # One trace each, whatever the layout.
  step_lib.make_step = lambda *args, **kwargs: chex.assert_max_traces(
    real(*args, **kwargs), n=1
  )
  assert jax.device_count() == 8
  layouts = {
    'alone': devices.Layout(1 + LOOKED_AT, group=1, rounds=1 + LOOKED_AT),
    '3': devices.make_layout(3),
    '8': devices.make_layout(8),
    '11 in turn': devices.make_layout(11, vmap=False),
    '11 side by side': devices.make_layout(11, vmap=True),
  }
  assert layouts['3'].group == 2
  assert (layouts['11 in turn'].width, layouts['11 in turn'].rounds) == (6, 2)
  arrays = {}
  for name, layout in layouts.items():
    members = train(layout)
    assert len(members) == layout.members
    for path, leaf in jax.tree.leaves_with_path(members[LOOKED_AT]):
      key = jax.tree_util.keystr(path, simple=True, separator='/')
      arrays[f'{name}/{key}'] = leaf
  np.savez(out, **arrays)


if __name__ == '__main__':
  main(sys.argv[1])
