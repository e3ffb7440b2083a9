"""A step that is lowered from shapes is the one that runs."""

import jax
import numpy as np
import pytest
import tiny_run

from qgan_jax.backend import backend, traced_for
from qgan_jax.runs import build
from qgan_jax.training import devices


@pytest.mark.parametrize(
  'layout',
  [
    devices.ALONE,
    devices.Layout(2, group=1, lanes=2),
    devices.Layout(3, group=1, rounds=3),
  ],
)
def test_shapes_give_the_program_of_the_arrays(layout):
  config = tiny_run.make_config('norm=batch,bits=8')
  dataset = tiny_run.make_dataset()
  setup = build.set_up(config, dataset, layout)
  program = setup.program()
  images = dataset.train_images[None, None, : tiny_run.BATCH]
  shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
  lowered = setup.program().lower(setup.state_shapes(), {'images': shape})
  zeros = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), setup.state_shapes()
  )
  states = program.put([zeros] * layout.members)
  batches = program.shard([{'images': images}] * layout.members)
  run = program._call.lower(states[0], batches[0], {})
  assert lowered.as_text() == run.as_text()
  assert lowered.in_avals == run.in_avals


def test_a_step_for_another_backend_is_another_program():
  assert backend() == jax.default_backend()
  with traced_for('tpu'):
    assert backend() == 'tpu'
    assert devices.make_layout(3).lanes == 3
  assert devices.make_layout(3).rounds == 3
