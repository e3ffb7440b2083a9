"""Rooflines and estimates, against sums that are done by hand."""

import pytest

from qgan_jax.chips import costs
from qgan_jax.chips.program import Program
from qgan_jax.chips.table import Chip, CHIPS, of_kind
from qgan_jax.chips.topologies import Machine

CHIP = Chip(
  'made-up',
  'tpu',
  'Chip 1',
  flops=100.0,
  memory=1000,
  bandwidth=20.0,
  link=8.0,
  clock=2.0,
  source='',
)


def machine(devices=2, chips=1, **changes):
  """Two devices share the rates of a chip."""
  chip = CHIP._replace(**changes)
  return Machine('made-up:1', chip, ('device',) * devices, chips, chip.backend)


def make_costs(cycles=0, optimum=None, made=10):
  program = Program({}, {}, {'dot': cycles}, {}, made, reduced=12)
  return costs.Costs(1.0, 100, 40, 300.0, 90.0, optimum, program)


def test_bounds_are_costs_over_the_rates_of_a_device():
  found = costs.bounds(make_costs(), machine(), dtype='float32')
  assert found == {'compute': 6.0, 'memory': 9.0, 'collectives': 3.0}
  alone = costs.bounds(make_costs(), machine(devices=1), dtype='float32')
  assert alone == {'compute': 3.0, 'memory': 4.5, 'collectives': 0.0}


@pytest.mark.parametrize(('dtype', 'times'), [('float32', 2), ('bfloat16', 1)])
def test_a_gpu_multiplies_float32_at_half_the_rate(dtype, times):
  found = costs.bounds(make_costs(), machine(backend='gpu'), dtype=dtype)
  assert found['compute'] == 6.0 * times


def test_what_a_step_takes_is_estimated_by_the_best_that_is_known():
  def seconds(found, **changes):
    return costs.estimate(found, machine(**changes), dtype='float32')

  assert seconds(make_costs(50, 4.0)) == (
    28.0,
    "the compiler's cycles at 2e-09 GHz",
  )
  assert seconds(make_costs(50, 4.0), clock=None)[0] == 4.0
  assert seconds(make_costs(0, 4.0))[0] == 4.0
  value, how = seconds(make_costs())
  assert value == 9.0
  assert 'slower' in how
  unknown = machine()._replace(chip=None)
  assert costs.estimate(make_costs(), unknown, dtype='float32') is None
  assert costs.bounds(make_costs(), unknown, dtype='float32') == {}


def test_the_largest_batch_leaves_room_for_the_state():
  # A device has 500 bytes; 100 are the state's, and 4 images take 40.
  assert costs.largest_batch(make_costs(), machine(), 4) == 40
  # Temporaries that lie elsewhere now would not in a larger batch.
  assert costs.largest_batch(make_costs(made=80), machine(), 4) == 20
  assert costs.largest_batch(make_costs(), machine(memory=100), 4) == 0


def test_runs_that_train_together_have_a_state_each():
  # Two runs take 140 of 500 bytes.
  assert costs.most_runs(make_costs(), machine(), 2) == 7
  assert costs.most_runs(make_costs(made=400), machine(), 2) == 2


def test_chips_are_known_by_how_their_devices_call_themselves():
  assert of_kind('TPU v5 lite') is CHIPS['v5e']
  assert of_kind('TPU v5') is CHIPS['v5p']
  assert of_kind('TPU v6 lite') is CHIPS['v6e']
  assert of_kind('NVIDIA H100 80GB HBM3') is CHIPS['h100']
  assert of_kind('cpu') is None


def test_rates_are_in_the_units_that_the_table_says():
  for name, chip in CHIPS.items():
    assert chip.name == name
    assert 1e14 < chip.flops < 1e16
    assert 2**33 < chip.memory < 2**40
    assert 1e11 < chip.link < chip.bandwidth < 1e13
    assert chip.source
