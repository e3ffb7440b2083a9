"""A state as one flat array per dtype, with a header that has its checksum.

Orbax is slow at many small arrays, does not notice flipped bytes, and reads a
missing chunk as zeros.
"""

from collections.abc import Mapping
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qgan_jax.errors import UserError
from qgan_jax.training import flat

PyTree = Any
Header = dict[str, Any]
Leaves = dict[str, np.ndarray]


class Damaged(Exception):
  """A checkpoint does not hold what was saved."""


def pack(
  state: PyTree, about: Mapping[str, Any]
) -> tuple[Header, dict[str, np.ndarray]]:
  """Returns (the header, the arrays by dtype).

  Args:
    state: any pytree of arrays.
    about: further entries of the header, as JSON can hold them.
  """
  leaves = {
    name: np.asarray(leaf)
    for name, leaf in _named_leaves(jax.device_get(state)).items()
  }
  header = {
    **about,
    'leaves': {name: flat.kind(leaf) for name, leaf in leaves.items()},
  }
  digest = _digest(header, leaves)
  return {**header, 'sha256': digest}, flat.concatenate(leaves)


def unpack(
  header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[Header, Leaves]:
  """Returns (the header without its digest, the state's leaves by path).

  Raises:
    Damaged: if they are not what `pack` returned.
  """
  try:
    header = dict(header)
    digest = header.pop('sha256')
    leaves = flat.split(
      {dtype: np.asarray(x) for dtype, x in arrays.items()}, header['leaves']
    )
  except Exception as error:  # A broken file can raise nearly anything.
    raise Damaged from error
  if digest != _digest(header, leaves):
    raise Damaged
  return header, leaves


def unflatten(
  like: PyTree, header: Header, leaves: Leaves, *, path: Path
) -> PyTree:
  """The leaves in the structure of `like`.

  Args:
    like: arrays or `jax.ShapeDtypeStruct`s.
    header: of the state.
    leaves: by path.
    path: of the checkpoint, for the message.

  Raises:
    UserError: if the state is of another structure.
  """
  wanted = {name: flat.kind(leaf) for name, leaf in _named_leaves(like).items()}
  saved = header['leaves']
  different = [
    name for name in {**wanted, **saved} if wanted.get(name) != saved.get(name)
  ]
  if different:
    name = different[0]
    raise UserError(
      f'checkpoint {path} is of another model: {len(different)} arrays differ, '
      f'such as {name}: {_describe(saved.get(name))} in the checkpoint, '
      f'{_describe(wanted.get(name))} now; use the config and the version of '
      'qgan_jax that it was trained with'
    )
  return jax.tree.unflatten(
    jax.tree.structure(like), [leaves[name] for name in wanted]
  )


def _named_leaves(tree: PyTree) -> dict[str, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }
  if len(named) != len(leaves):
    raise ValueError('two leaves of the state have the same path')
  return named


def _digest(header: Header, leaves: Leaves) -> str:
  digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
  for name in sorted(leaves):
    digest.update(leaves[name].tobytes())
  return digest.hexdigest()


def _describe(kind: list[Any] | None) -> str:
  return f'{kind[1]}{kind[0]}' if kind else 'nothing'
