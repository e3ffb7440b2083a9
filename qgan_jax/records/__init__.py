"""The JSON files of runs and sweeps: written whole, read by a schema.

A folder may come from a disk that was full, from an editor or from a stranger.
So every file that is read back is checked here, once: its types, that numbers
are finite, and that what others rely on is there. Readers take what they get
as it is. `DamagedFile` is a person's error: one sentence that names the file.
"""

from qgan_jax.records.caveats import (
  caveats,
  has_learned,
  LEAST_COVERAGE,
  of_too_few,
  too_few,
)
from qgan_jax.records.files import (
  DamagedFile,
  metrics_row,
  parse,
  read,
  read_metrics,
  write_json,
)
from qgan_jax.records.lock import alone, LOCK, LOCK_VARIABLE, try_lock
from qgan_jax.records.schemas import (
  PICTURES,
  PRECISION,
  RUN,
  Schema,
  SCORES,
  STATES,
  SWEEP,
  TRIALS,
)

__all__ = [
  'LEAST_COVERAGE',
  'LOCK',
  'LOCK_VARIABLE',
  'PICTURES',
  'PRECISION',
  'RUN',
  'SCORES',
  'STATES',
  'SWEEP',
  'TRIALS',
  'DamagedFile',
  'Schema',
  'alone',
  'caveats',
  'has_learned',
  'metrics_row',
  'of_too_few',
  'parse',
  'read',
  'read_metrics',
  'too_few',
  'try_lock',
  'write_json',
]
