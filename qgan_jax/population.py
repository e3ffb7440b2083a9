r"""Trains many trials in one program, each as `qgan_jax.main` would alone.

  python -m qgan_jax.population --trials=trials.json

The file holds a JSON list with one object for each trial:

  {"workdir": "runs/a", "args": ["--config=mnist:bits=4"]}

`args` are the flags that `qgan_jax.main` would get. Trials share one compiled
step if they differ only in bit widths, seeds, learning rates, the optimizers'
other arguments, the numbers of the loss (such as the penalty's weight) or the
moving average's decay. Otherwise they form groups, which train one after
another. Trials that have their scores are left as they are; the others resume
from the newest step that their group has saved.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from qgan_jax import errors
from qgan_jax.runs.population import train_population


def main(argv: Sequence[str]) -> None:
  """Trains the trials of a file; see the module's docstring."""
  values = flags.FlagValues()
  errors.define_path('trials', 'JSON file with the trials.', values)
  errors.parse_flags(argv, values, __doc__)
  if not values.trials:
    raise errors.UserError('say which trials: --trials=trials.json')
  train_population(Path(values.trials))


if __name__ == '__main__':
  errors.run(main)
