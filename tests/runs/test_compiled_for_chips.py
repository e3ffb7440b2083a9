"""Steps are compiled for chips that are not here; a minute each.

pip install -e '.[test,preflight]' && pytest -m preflight
"""

import jax
import pytest

from qgan_jax import config as config_lib
from qgan_jax.chips import topologies
from qgan_jax.errors import UserError
from qgan_jax.runs.preflight import check

pytestmark = pytest.mark.preflight


def compiled(name, *strings, population=False):
  """The one program that runs on digits need."""
  configs = [
    config_lib.resolve(
      config_lib.override(
        config_lib.base(experiment='digits', source='digits'), string
      )
    )
    for string in strings
  ]
  (found,) = check(
    configs,
    topologies.find(name),
    population=population,
    against_float=False,
  )
  assert found.costs.memory < found.machine.chip.memory
  assert found.costs.flops > 1e8
  assert found.seconds > 0
  return found


@pytest.mark.parametrize(
  'string',
  [
    'bits=32',
    'bits=8',
    'bits=4,quantizer=lsq,activation_quantizer=pact',
    'bits=4,quantizer=stochastic',
    'bits=8,penalty=gradient_penalty',
    'bits=8,dtype=bfloat16',
  ],
)
def test_gradients_travel_in_two_collectives(string):
  """Ranges are learned, so that only gradients and metrics are averaged."""
  program = compiled('v5e:2x2', f'{string},steps_per_call=1').costs.program
  assert program.collectives == 2
  assert program.operations['convolution'] > 20


def test_steps_of_a_long_call_cost_what_a_call_of_one_does():
  one, many = (
    compiled('v5e:2x2', f'bits=8,steps_per_call={steps}').costs
    for steps in (1, 20)
  )
  # The devices are counted once a call.
  assert many.program.collectives == one.program.collectives + 1
  cycles = [sum(costs.program.cycles.values()) for costs in (one, many)]
  assert cycles[1] == pytest.approx(cycles[0], rel=0.05)
  assert many.flops == pytest.approx(one.flops, rel=0.01)
  assert many.bytes == pytest.approx(one.bytes, rel=0.05)


def test_measured_ranges_travel_by_themselves():
  found = compiled('v5e:2x2', 'bits=8,ranges=moving,steps_per_call=1')
  assert 2 < found.costs.program.collectives <= 12


def test_256_chips_compute_what_four_do():
  many = compiled('v5e:16x16', 'bits=8,batch_size=1024')
  four = compiled('v5e:2x2', 'bits=8,batch_size=16')
  assert len(many.machine.devices) == 256
  assert many.images == four.images == 4
  for one, other in zip(many.costs[1:4], four.costs[1:4], strict=True):
    assert one == pytest.approx(other, rel=0.3)


def test_one_chip_needs_no_collective():
  assert compiled('v5e:1', 'bits=8').costs.program.collectives == 0


def test_a_population_shares_a_chip_in_lanes():
  strings = [f'bits={bits}' for bits in (4, 8)]
  found = compiled('v5e:1', *strings, population=True)
  assert (found.trials, found.at_once, found.rounds) == (2, 2, 1)
  assert found.images == 2 * found.config.batch_size


@pytest.mark.parametrize(
  'name',
  ['v4:2x2x1', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1', 'h100:1', 'h100:8'],
)
def test_every_chip_of_the_table_has_its_compiler(name):
  if name.startswith('tpu7x') and jax.__version_info__ < (0, 12):
    with pytest.raises(UserError, match='jaxlib cannot read what'):
      compiled(name, 'bits=8')
    return
  assert compiled(name, 'bits=8').costs.program.kernels
