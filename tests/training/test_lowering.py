"""A step that is lowered from shapes is the one that runs."""

import jax
import numpy as np
import pytest
import tiny_run

from qgan_jax.backend import backend, traced_for
from qgan_jax.runs import build
from qgan_jax.training import devices


@pytest.mark.parametrize(
  ('layout', 'steps'),
  [
    (devices.ALONE, 1),
    (devices.Layout(2, group=1, lanes=2), 2),
    (devices.Layout(3, group=1, rounds=3), 1),
  ],
)
def test_shapes_give_the_program_of_the_arrays(layout, steps):
  config = tiny_run.make_config(f'norm=batch,bits=8,steps_per_call={steps}')
  dataset = tiny_run.make_dataset()
  setup = build.set_up(config, dataset, layout)
  program = setup.program()
  batch = {'images': dataset.train_images[None, None, : tiny_run.BATCH]}
  if steps > 1:
    batch = {'indices': np.zeros((steps, 1, tiny_run.BATCH), np.int32)}
  shapes = jax.eval_shape(lambda: batch)
  lowered = setup.program().lower(setup.state_shapes(), shapes)
  zeros = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), setup.state_shapes()
  )
  states = program.put([zeros] * layout.members)
  batches = program.shard([batch] * layout.members)
  run = program._call.lower(states[0], batches[0], program._rows)
  assert lowered.as_text() == run.as_text()
  assert lowered.in_avals == run.in_avals


def test_a_step_is_checked_once_and_not_by_every_parameter():
  dataset = tiny_run.make_dataset()
  setup = build.set_up(tiny_run.make_config('norm=batch,bits=8'), dataset)
  batch = {'images': dataset.train_images[None, None, : tiny_run.BATCH]}
  shapes = jax.eval_shape(lambda: batch)
  lowered = setup.program().lower(setup.state_shapes(), shapes)
  checks = lowered.as_text().count('stablehlo.is_finite')
  assert checks > 20
  # The compiler would fuse all of them into the update of each parameter.
  assert lowered.compile().as_text().count(' is-finite(') <= checks


def test_a_step_for_another_backend_is_another_program():
  assert backend() == jax.default_backend()
  with traced_for('tpu'):
    assert backend() == 'tpu'
    assert devices.make_layout(3).lanes == 3
  assert devices.make_layout(3).rounds == 3


@pytest.mark.parametrize(
  ('arg', 'steps'),
  [
    ('steps=800', 20),
    ('steps=800,log_every=30', 10),
    ('steps=800,diagnose_every=3', 1),
    ('steps=800,steps_per_call=50', 50),
  ],
)
def test_calls_of_accelerators_are_as_long_as_periods_allow(arg, steps):
  setup = build.set_up(tiny_run.make_config(arg), tiny_run.make_dataset())
  with traced_for('tpu'):
    assert setup.steps_per_call == steps
    assert setup.program().by_index == (steps > 1)
