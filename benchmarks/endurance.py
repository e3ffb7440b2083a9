r"""Kills, damages and starves runs, and says what became of them.

  python benchmarks/endurance.py --only=kills --kills=10
  python benchmarks/endurance.py --out=benchmarks/results

What a run has left is compared byte by byte with what an undisturbed one
leaves, without the package's own readers. All of it takes hours on two cores,
`--only` a part of that. Exit code 1 where a promise was not kept.
"""

from collections.abc import Sequence
from pathlib import Path
import tempfile

from absl import app, flags, logging
import damaged
from endured import Bench
import killed
import killed_sweeps
from measuring import save, say, start_record
import starved

_PARTS = {
  'kills': lambda bench: killed.kill_runs(
    bench, _KILLS.value, jobs=_JOBS.value, seed=_SEED.value
  ),
  'sweeps': lambda bench: killed_sweeps.kill_workers(
    bench, _WORKERS.value, seed=_SEED.value
  ),
  'damages': lambda bench: damaged.damage_checkpoints(
    bench, _DAMAGES.value, seed=_SEED.value
  ),
  'scarcity': lambda bench: starved.starve(bench, jobs=_JOBS.value),
}
_ONLY = flags.DEFINE_multi_enum(
  'only', list(_PARTS), list(_PARTS), 'The parts to do; all unless given.'
)
_KILLS = flags.DEFINE_integer('kills', 100, 'Kills of runs.', lower_bound=1)
_WORKERS = flags.DEFINE_integer(
  'workers', 10, 'Kills of workers of each sweep.', lower_bound=2
)
_DAMAGES = flags.DEFINE_integer(
  'damages', 500, 'Damaged checkpoints.', lower_bound=1
)
_JOBS = flags.DEFINE_integer(
  'jobs', 1, 'Runs at a time, of kills and of scarcity.', lower_bound=1
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of moments and damages.')
_OUT = flags.DEFINE_string(
  'out', None, 'A folder for a JSON file of each part.'
)


def main(argv: Sequence[str]) -> int:
  """Does the parts; see the module's docstring."""
  del argv
  logging.set_verbosity(logging.WARNING)
  failures = 0
  with tempfile.TemporaryDirectory(prefix='endurance-') as folder:
    bench = Bench(Path(folder))
    for part in _ONLY.value:
      record = start_record(('jax', 'jaxlib', 'flax', 'orbax-checkpoint'))
      record |= _PARTS[part](bench)
      say(part, record)
      out = Path(_OUT.value) if _OUT.value else None
      save(record, out, f'endurance-{part}')
      failures += len(record['failures'])
  return int(failures > 0)


if __name__ == '__main__':
  app.run(main)
