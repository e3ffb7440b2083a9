"""Checks that the files named in configs exist, before any work is done."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qgan_jax import data
from qgan_jax.errors import cache_folder, UserError
from qgan_jax.runs.folder import read_start
from qgan_jax.training.writers import check_tracker


def check_for_training(configs: Iterable[Any]) -> None:
  """Like `check`, with what only training needs: trackers, runs to start from.

  Args:
    configs: resolved.

  Raises:
    UserError: something is missing that cannot be downloaded.
  """
  configs = list(configs)
  check(configs)
  for tracker in dict.fromkeys(c.logging.tracker for c in configs):
    check_tracker(tracker)
  for folder in dict.fromkeys(c.init_from for c in configs):
    if folder:
      read_start(folder)


def check(configs: Iterable[Any]) -> None:
  """Checks for data sets and weights of extractors, which scores need.

  Args:
    configs: resolved.

  Raises:
    UserError: something is missing that cannot be downloaded.
  """
  configs = list(configs)
  sources = [(c.data.source, c.data.dir) for c in configs]
  for source, folder in dict.fromkeys(sources):
    if not source.startswith('arrays-'):  # Given in Python.
      data.check(source, data_dir=folder)
  files = [c.scores.inception_weights for c in configs if uses_inception(c)]
  for file in dict.fromkeys(files):
    if not Path(file).is_file():
      raise UserError(
        f'scores.inception_weights={file}: there is no such file; give the '
        'path of pt_inception-2015-12-05-6726825d.pth'
      )
  if len(files) < len(configs):
    cache_folder('cache classifiers', 'classifiers')  # It needs one.


def uses_inception(config: Any) -> bool:
  """Whether scores use Inception's features, and not a classifier's."""
  return config.scores.extractor == 'inception'
