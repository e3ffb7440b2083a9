"""Pairs of pictures: the same file name in two folders."""

from absl import logging
import numpy as np

from qgan_jax.data.layout import Layout
from qgan_jax.errors import did_you_mean, UserError


def find_pairs(layout: Layout, pairs: str) -> list[tuple[int, int]]:
  """Which pictures are the input and the target of a pair.

  Those that have the same name in the two folders, but for the extension, and
  lie in the same part of a split. Others are left out, and a warning counts
  them.

  Args:
    layout: of all pictures; its classes are the folders.
    pairs: names of the folders, 'A/B': inputs, targets.

  Returns:
    Numbers of pictures, in the order of the inputs.

  Raises:
    UserError: there is no such folder, or no pair.
  """
  names = pairs.split('/')
  for name in names:
    if name not in layout.class_names:
      hint = did_you_mean(name, layout.class_names)
      known = ', '.join(layout.class_names) or 'none'
      raise UserError(
        f'pairs={pairs}: there is no folder {name!r} of pictures beside others '
        f'(there are: {known}){hint and f"; {hint}"}'
      )
  assert layout.labels is not None
  splits = layout.splits or [''] * len(layout.names)
  inputs, targets = (
    {
      (splits[i], layout.names[i]): int(i)
      for i in np.flatnonzero(layout.labels == layout.class_names.index(name))
    }
    for name in names
  )
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
