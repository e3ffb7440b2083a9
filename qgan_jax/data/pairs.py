"""Matches pictures of two folders: by file name, or any two."""

from collections.abc import Sequence

from absl import logging
import numpy as np

from qgan_jax.data.layout import Layout
from qgan_jax.errors import did_you_mean, UserError


def find_pairs(layout: Layout, pairs: str) -> list[tuple[int, int]]:
  """Finds the pictures that are the input and the target of a pair.

  These are pictures that have the same name in the two folders, apart from the
  extension, and are in the same part of a split. Others are left out, and a
  warning counts them.

  Args:
    layout: of all pictures; its classes are the folders.
    pairs: names of the folders, 'A/B': inputs, targets.

  Returns:
    Indices of pictures, in the order of the inputs.

  Raises:
    UserError: there is no such folder, no pair, or two pictures of one name.
  """
  names = _folders(layout, 'pairs', pairs)
  assert layout.labels is not None
  splits = layout.splits or [''] * len(layout.names)
  sides: list[dict[tuple[str, str], int]] = []
  for name in names:
    side = np.flatnonzero(layout.labels == layout.class_names.index(name))
    keys = [(splits[i], layout.names[i]) for i in side.tolist()]
    if len({*keys}) < len(keys):
      twice = max(keys, key=keys.count)[1]
      raise UserError(
        f'pairs={pairs}: two pictures in {name!r} are called {twice!r}, apart '
        'from their extensions: which one is of the pair? Take the other away'
      )
    sides.append(dict(zip(keys, side.tolist(), strict=True)))
  inputs, targets = sides
  found = [(i, targets[key]) for key, i in inputs.items() if key in targets]
  if not found:
    raise UserError(
      f'pairs={pairs}: no picture in {names[0]!r} has the name of one in '
      f'{names[1]!r}, which would make them a pair'
    )
  alone = len(inputs) + len(targets) - 2 * len(found)
  if alone:
    logging.warning(
      '%d picture(s) of pairs=%s have no other of the same name, and are left '
      'out',
      alone,
      pairs,
    )
  return found


def match_domains(
  layout: Layout, domains: str, parts: Sequence[str]
) -> list[tuple[int, int]]:
  """Puts pictures of two folders side by side, whatever their names.

  In each part of the split, every picture of the larger folder is used once,
  and those of the smaller folder in turn, as often as needed.

  Args:
    layout: of all pictures; its classes are the folders.
    domains: names of the folders, 'A/B'.
    parts: of each picture, the part of the split that it is in: 'train',
      'test', or another, which is left out.

  Returns:
    Indices of pictures, (of A, of B); both are in the same part.

  Raises:
    UserError: there is no such folder, or a part has no picture of one folder.
  """
  names = _folders(layout, 'domains', domains)
  assert layout.labels is not None
  found = []
  for part, purpose in (('train', 'train on'), ('test', 'hold out')):
    inputs, targets = (
      [
        i
        for i, label in enumerate(layout.labels)
        if layout.class_names[label] == name and parts[i] == part
      ]
      for name in names
    )
    for name, side in zip(names, (inputs, targets), strict=True):
      if not side:
        raise UserError(
          f'domains={domains}: there is no picture in {name!r} to {purpose}; '
          'add some'
        )
    found += [
      (inputs[k % len(inputs)], targets[k % len(targets)])
      for k in range(max(len(inputs), len(targets)))
    ]
  return found


def _folders(layout: Layout, key: str, value: str) -> list[str]:
  """The names of two folders.

  Raises:
    UserError: there is no such folder.
  """
  names = value.split('/')
  for name in names:
    if name not in layout.class_names:
      hint = did_you_mean(name, layout.class_names)
      known = ', '.join(layout.class_names) or 'none'
      raise UserError(
        f'{key}={value}: there is no folder {name!r} of pictures beside others '
        f'(there are: {known}){hint and f"; {hint}"}'
      )
  return names
