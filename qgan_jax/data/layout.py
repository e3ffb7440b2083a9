"""Reads classes and split from the folders around pictures."""

from collections.abc import Sequence
import os
from pathlib import PurePath
from typing import NamedTuple

from absl import logging
import numpy as np

from qgan_jax.errors import UserError

Parts = tuple[str, ...]

# What folders of a split are called, in any case of letters.
_SPLITS = {
  'train': 'train',
  'training': 'train',
  'test': 'test',
  'testing': 'test',
  'val': 'validation',
  'valid': 'validation',
  'validation': 'validation',
}


class Layout(NamedTuple):
  """What the folders say about N pictures.

  Attributes:
    splits: of each, `'train'`, `'test'` or `'unused'`; None if the folders give
      no split.
    labels: int32 `[N]`, or None without classes.
    class_names: in the order of the labels.
    names: of each, its path inside its class's folder, without extension.
  """

  splits: tuple[str, ...] | None
  labels: np.ndarray | None
  class_names: tuple[str, ...]
  names: tuple[str, ...] = ()


def layout_of(paths: Sequence[Parts]) -> Layout:
  """Reads classes and split from the folders of pictures.

  An outer folder that contains all others is ignored. Folders `train` and
  `test`, or `val`, are a split if all pictures are in them; if all three exist,
  `val` is not used. If all pictures are then in two or more folders, these are
  the classes, in the order of their numbers if all names are numbers, otherwise
  of the alphabet.

  A warning tells of pictures beside two or more folders, which are then no
  classes.

  Args:
    paths: of the pictures, inside the folder or archive.

  Raises:
    UserError: pictures lie beside a split, which would be lost.
  """
  paths = _unwrapped(paths)
  splits = _splits(paths)
  _check_beside(paths)
  if splits is not None:
    paths = [path[1:] for path in paths]
    _check_beside(paths)
  names = {path[0] for path in paths}
  if len(names) < 2 or any(len(path) == 1 for path in paths):
    return Layout(splits, None, ())
  are_numbers = all(name.isdecimal() for name in names)
  ordered = sorted(names, key=lambda x: (int(x) if are_numbers else 0, x))
  numbers = {name: i for i, name in enumerate(ordered)}
  labels = np.array([numbers[path[0]] for path in paths], np.int32)
  # Names of files are bytes; records hold text.
  shown = (os.fsencode(name).decode(errors='replace') for name in ordered)
  inside = (PurePath(*path[1:]).with_suffix('') for path in paths)
  return Layout(splits, labels, tuple(shown), tuple(map(str, inside)))


def _unwrapped(paths: Sequence[Parts]) -> Sequence[Parts]:
  while len({path[0] for path in paths}) == 1 and all(
    len(path) > 1 for path in paths
  ):
    paths = [path[1:] for path in paths]
  return paths


def _check_beside(paths: Sequence[Parts]) -> None:
  """Tells of pictures that keep folders from being classes or a split."""
  folders = {path[0] for path in paths if len(path) > 1}
  beside = sorted(path[0] for path in paths if len(path) == 1)
  parts = {_SPLITS.get(name.lower()) for name in folders}
  is_split = 'train' in parts and len(parts - {None}) > 1
  names = ', '.join(map(repr, sorted(folders)))
  if beside and len(folders) > 1:
    message = (
      f'{len(beside)} picture(s) lie beside the folders {names}, such as '
      f'{beside[0]!r}'
    )
    if is_split:
      raise UserError(
        f'{message}: are they to be trained on or held out? Move them into a '
        'folder, or away'
      )
    logging.warning(
      '%s, so that these folders are no classes; move them into one, or away, '
      'if they should be',
      message,
    )
  elif is_split and None in parts:
    logging.warning(
      'the folders %s are taken for classes, not for a split, because there '
      'are others than those of a split',
      names,
    )


def _splits(paths: Sequence[Parts]) -> tuple[str, ...] | None:
  """The split of each picture, where the folders are one."""
  if any(len(path) == 1 for path in paths):
    return None
  splits = [_SPLITS.get(path[0].lower()) for path in paths]
  found = set(splits)
  if None in found or 'train' not in found or len(found) < 2:
    return None
  held_out = 'test' if 'test' in found else 'validation'
  meaning = {'train': 'train', held_out: 'test'}
  return tuple(meaning.get(split or '', 'unused') for split in splits)
