r"""Compiles a run for chips that you need not have, and estimates its cost.

  python -m qgan_jax.preflight --config=mnist:bits=8 --on=v5e:2x2 --price=4.8

This compiles the step that `qgan_jax.main` would run. It prints the memory and
operations of the step, what limits its speed, how long training takes, and
where the quantized program does more than the same program in float. For
another machine these numbers are compiled or estimated, and nothing is run;
with --on=here, some steps are run and timed as well. --sweep covers all trials
of a sweep, each on a chip of its own or, with --layout=population, together in
one program.

pip install 'qgan_jax[preflight]' brings the compilers for other chips. Machines
are CHIP:COUNT or CHIP:TOPOLOGY: v5e:1, v5e:2x2, v4:2x2x1, v5p:2x2x1, v6e:4x4,
tpu7x:2x2x1, h100:1, h100:8, h100:2x8 (two hosts of eight).
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
import jax

from qgan_jax import errors, records
from qgan_jax.chips import topologies
from qgan_jax.config import flags as config_flags
from qgan_jax.runs import preflight_text
from qgan_jax.runs.plan import plan
from qgan_jax.runs.preflight import check, spread_over_cores


def main(argv: Sequence[str]) -> None:
  """Compiles, and prints what it will cost; see the module's docstring."""
  values = flags.FlagValues()
  config_flags.define_flags(argv, values)
  flags.DEFINE_string(
    'on',
    topologies.HERE,
    'Machine to compile for, such as v5e:2x2, or here for this one.',
    flag_values=values,
  )
  flags.DEFINE_string(
    'sweep', None, "Values to try, such as 'bits=2,4,8'.", flag_values=values
  )
  flags.DEFINE_enum(
    'layout',
    'processes',
    ['processes', 'population'],
    'For a sweep: one process and chip for each trial, or all trials in one '
    'program.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'against_float',
    True,
    'Also compiles the same step without quantization, and compares both.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'price',
    None,
    'Price of the whole machine for an hour.',
    lower_bound=0,
    flag_values=values,
  )
  errors.define_path('json', 'JSON file to write all numbers to.', values)
  given = config_flags.read_flags(argv, values, __doc__)
  if values.sweep is None:
    configs = [config_flags.experiment_of(values, *given).config]
  else:
    trials = plan(*given, own=values.sweep, workdir=None).trials
    configs = [config_flags.parse_args(trial.args).config for trial in trials]
  population = values.layout == 'population'
  if values.on != topologies.HERE:
    # The machine's own devices are not asked for: there may be others.
    jax.config.update('jax_platforms', 'cpu')
  elif population:
    spread_over_cores(configs)
  found = check(
    configs,
    topologies.find(values.on),
    population=population,
    against_float=values.against_float,
  )
  file, arg, _ = given
  name = Path(file).stem + (f':{arg}' if arg else '')
  for checked in found:
    print(preflight_text.describe(checked, name), end='\n\n')
  print(preflight_text.total(found, values.price, population=population))
  if values.json:
    record = [preflight_text.record(checked) for checked in found]
    records.write_json(Path(values.json), record)


if __name__ == '__main__':
  errors.run(main)
