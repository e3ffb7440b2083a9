r"""Trains many trials in one program, each as `qgan_jax.main` would alone.

  python -m qgan_jax.population --trials=trials.json

The file holds a JSON list with an object for each trial:

  {"workdir": "runs/a", "args": ["--config=mnist:bits=4"]}

`args` are the flags that `qgan_jax.main` would be given. Trials that differ
only in bit widths, seeds, learning rates, the optimizers' other arguments, the
penalty's weight or the moving average's decay share one compiled step; others
form groups that train one after another. Trials with scores are left as they
are, and the rest goes on from the newest step that its group has saved.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from qgan_jax import errors
from qgan_jax.runs.population import train_population


def main(argv: Sequence[str]) -> None:
  """Trains the trials of a file; see the module's docstring."""
  values = flags.FlagValues()
  errors.define_path('trials', 'A JSON file of trials.', values)
  errors.parse_flags(argv, values, __doc__)
  if not values.trials:
    raise errors.UserError('say which trials: --trials=trials.json')
  train_population(Path(values.trials))


if __name__ == '__main__':
  errors.run(main)
