"""Records the pictures of a run, and checks that they are still the same."""

from collections import Counter
from pathlib import Path

from absl import logging
import numpy as np

from qgan_jax import records
from qgan_jax.data import ImageDataset, near_duplicates
from qgan_jax.errors import UserError

_FILE = 'pictures.json'
# Of a class: what is drawn of fewer are these pictures again.
_FEW_IN_CLASS = 20


def record(workdir: Path, dataset: ImageDataset) -> None:
  """Records the digests of a run's pictures, if the data set has any."""
  if dataset.pictures:
    found = {'pictures': list(dataset.pictures)}
    records.write_json(workdir / _FILE, found)


def differences(workdir: Path, before: str, dataset: ImageDataset) -> list[str]:
  """Lines with the differences between a run's data and the current data.

  Args:
    workdir: the run's folder.
    before: name of the data set that it was trained on.
    dataset: the current data, wherever it is stored.
  """
  if before == dataset.name:
    return []
  line = f'dataset: {before} -> {dataset.name}'
  if before.startswith('folder:'):
    return [
      f'{line}: an earlier version made this run and chose the held-out '
      'pictures by their number, not by their content; only that version can '
      'go on with it or score it'
    ]
  known = records.read(workdir / _FILE, records.PICTURES)
  if known is None or not dataset.pictures:
    return [line]
  then, now = Counter(known['pictures']), Counter(dataset.pictures)
  added, removed = (now - then).total(), (then - now).total()
  if added or removed:
    return [f'{line}: {added:,} picture(s) added, {removed:,} removed']
  return [f'{line}: the same pictures, in other classes or split otherwise']


def check(workdir: Path, before: str, dataset: ImageDataset) -> None:
  """Refuses other data than a run was trained on.

  Raises:
    UserError: the data differs; the message says how.
  """
  lines = differences(workdir, before, dataset)
  if lines:
    raise UserError(
      f'{workdir} has learned other data than those that are here '
      f'({lines[0]}); bring them back'
    )


def warn(dataset: ImageDataset, *, conditional: bool) -> None:
  """Warns of near copies among a user's pictures, and of small classes.

  The first are held-out pictures that look like training pictures. Data sets
  that have a name are not examined, since it takes seconds.

  Args:
    dataset: what is trained on.
    conditional: whether networks get its classes.
  """
  if not dataset.pictures:
    return
  parts = [(dataset.train_images, dataset.test_images)]
  if dataset.is_unpaired:
    parts = [
      (dataset.train_inputs, dataset.test_inputs),
      (dataset.train_targets, dataset.test_targets),
    ]
  alike = sum(near_duplicates(train, test) for train, test in parts)
  if alike:
    logging.warning(
      '%d of %d held-out pictures look like one that is trained on, so that '
      'scores see less of what is new: take out copies, or keep views of one '
      'thing together (group=name)',
      alike,
      sum(len(test) for _, test in parts),
    )
  if conditional and dataset.train_labels is not None:
    counts = np.bincount(dataset.train_labels)
    small = [
      f'{name} ({count})'
      for name, count in zip(dataset.class_names, counts, strict=True)
      if count < _FEW_IN_CLASS
    ]
    if small:
      logging.warning(
        'fewer than %d pictures are trained on in the class(es) %s: networks '
        'can only repeat these; add others, or say conditional=false',
        _FEW_IN_CLASS,
        ', '.join(small),
      )
