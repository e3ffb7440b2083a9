"""The command on this machine: what it compiles, measures and refuses."""

import json
import types

from command_line import finish
import pytest

from qgan_jax import preflight
from qgan_jax.errors import UserError
from qgan_jax.runs import preflight_text
from qgan_jax.runs.preflight import Checked
from qgan_jax.training import machine

TINY = 'digits:channels=8,batch_size=8,bits=8,steps=1000'


@pytest.fixture(scope='module')
def here(commands, tmp_path_factory):
  """(what it printed, what it wrote) of a run on this machine."""
  path = tmp_path_factory.mktemp('preflight') / 'numbers.json'
  flags = f'--config={TINY}', '--price=2', f'--json={path}'
  out, _ = finish(commands('preflight', *flags))
  return out, json.loads(path.read_text())


def test_steps_that_are_run_are_said_to_be_measured(here):
  out, (numbers,) = here
  step = numbers['measured']['step_seconds']
  assert numbers['measured']['training_seconds'] == pytest.approx(1000 * step)
  assert numbers['estimated']['training_seconds'] is None
  assert 1e-5 < step < 10
  assert 'a step, data included' in out
  assert '1,000 steps' in out
  assert '(measured)' in out
  assert 'nothing was run' not in out


def test_the_program_is_that_of_the_run(here):
  _, (numbers,) = here
  compiled = numbers['compiled']
  # Both networks, their moments and an average of one of them.
  assert 2**14 < compiled['state_bytes'] < 2**22
  assert compiled['temporary_bytes'] > 0
  assert compiled['flops'] > 1e6
  assert compiled['collectives'] == 0


def test_quantization_is_what_float_lacks(here):
  out, (numbers,) = here
  rounded = [
    numbers[name]['operations'].get('round-nearest-even', 0)
    for name in ('compiled', 'compiled_float')
  ]
  assert rounded[0] > 10 * rounded[1]
  assert 'quantized costs more in ' in out


def test_a_sweep_is_compiled_once_for_trials_of_one_program(commands, tmp_path):
  path = tmp_path / 'numbers.json'
  flags = '--sweep=seed=0,1', '--noagainst_float', f'--json={path}'
  together, alone = (
    commands('preflight', f'--config={TINY}', *flags[:2], *more)
    for more in ([flags[2], '--layout=population'], [])
  )
  # As the population itself does, they share the cores of this machine.
  cores = min(2, machine.num_cores())
  assert f'2 runs on here: {cores} chip' in finish(together)[0]
  (numbers,) = json.loads(path.read_text())
  assert numbers['runs'] == 2
  # Each of two runs in its own process, one after the other.
  assert '2 runs of 1,000 steps, 1 at once' in finish(alone)[0]


def test_trials_of_all_programs_share_the_chips():
  # Of two programs, one trial and three, on two chips.
  found = [
    Checked(
      **dict.fromkeys(Checked._fields) | {
        'config': types.SimpleNamespace(steps=steps),
        'trials': trials, 'at_once': 2, 'measured': 36.0,
      }
    )
    for steps, trials in ((300, 1), (100, 3))
  ]  # fmt: skip
  told = preflight_text.total(found, 2.0, population=False)
  assert 'all training 3 h, 3 h, at 2 an hour 6.00' in told
  found = [checked._replace(trials=2) for checked in found]
  told = preflight_text.total(found, 2.0, population=True)
  assert 'all training 4 h, 4 h, at 2 an hour 8.00' in told


def test_slips_are_told_before_anything_is_compiled(monkeypatch):
  for flag, message in (
    ('--on=v5f:2x2', 'no chip'),
    ('--price=-1', 'price'),
    ('--layout=both', 'layout'),
  ):
    with pytest.raises(UserError, match=message):
      preflight.main([f'--config={TINY}', flag])
  # As the run itself refuses it.
  with pytest.raises(UserError, match='beta'):
    preflight.main([f'--config={TINY},beta=2'])
