"""Loads the networks of an earlier run, for another run to start from.

G starts from its moving average, which is what was scored, and D from its
weights; both with their other variables, such as BatchNorm's. Optimizers and
moving averages start anew, since they belong to another loss. Ranges and
learned quantizers are fitted to the first images, as in every run.
"""

from pathlib import Path
from typing import Any

from flax import traverse_util
import numpy as np

from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.runs.folder import read_start
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.variants import Variant

PyTree = Any


def load_start(
  folder: str, setup: build.Setup, variant: Variant | None = None
) -> dict[str, PyTree]:
  """The variables of a run, for another one to start from.

  Args:
    folder: of the run. Its best checkpoint is used, or else its newest.
    setup: of the run that starts.
    variant: of both runs if it was given in Python; None for that of the
      configs.

  Returns:
    Variables by network, {'params': …, and other collections}.

  Raises:
    UserError: the folder holds no run, or one with other networks.
  """
  old = read_start(folder)
  source = build.set_up(old, setup.dataset, variant=variant)
  shapes = source.state_shapes()
  checkpoints = Checkpoints(Path(folder) / 'checkpoints', primary=False)
  _, state = checkpoints.restore_best_or_latest(shapes)
  start = source.sampler().variables(state)
  own = setup.state_shapes()
  for name, variables in start.items():
    network = own.networks[name]
    _check(folder, name, variables, {'params': network.params, **network.stats})
  return start


def _check(folder: str, name: str, found: PyTree, wanted: PyTree) -> None:
  shapes = [
    {
      path: np.shape(x)
      for path, x in traverse_util.flatten_dict(tree, sep='/').items()
    }
    for tree in (found, wanted)
  ]
  for path in shapes[0] | shapes[1]:
    there, here = (tree.get(path) for tree in shapes)
    if there != here:
      raise UserError(
        f'init_from={folder}: {path} of its {name} is {there or "missing"}, '
        f'and {here or "nothing"} here; give both runs the same networks'
      )
