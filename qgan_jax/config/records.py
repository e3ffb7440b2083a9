"""Configs as a run's folder keeps them, also those of earlier versions."""

from collections.abc import Mapping
import json
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from qgan_jax.config.keys import KEYS, REMOVED, RENAMED
from qgan_jax.config.resolution import base, leaves, resolve
from qgan_jax.errors import UserError


def to_json(config: ConfigDict) -> str:
  """The config as JSON: nothing is dropped, what cannot be kept is refused.

  Raises:
    TypeError: a value that JSON cannot hold.
    ValueError: a value that is not finite.
  """
  return json.dumps(config.to_dict(), indent=2, allow_nan=False)


def from_json(text: str) -> FrozenConfigDict:
  """The resolved config that `to_json` wrote, in this version or an earlier.

  Keys that are new since then have their defaults. Keys that are no more are
  left out where they had theirs.

  Raises:
    UserError: it says something that has no key in this version.
    ValueError: it is not JSON, or no config.
    TypeError: a value is not of its key's type.
  """
  record = json.loads(text)
  if not isinstance(record, dict) or 'experiment' not in record:
    raise ValueError('it is no config of an experiment')
  values: dict[str, Any] = {}
  for path, value in leaves(record).items():
    path = RENAMED.get(path, path)
    if path in KEYS:
      values[path] = value
    elif path not in REMOVED or value != REMOVED[path]:
      raise UserError(
        f'a run with {path}={value!r} cannot be read: this version has no such '
        'key; use the one that made the run'
      )
  return resolve(base(**values))


def diff(
  old: ConfigDict | Mapping[str, Any], new: ConfigDict | Mapping[str, Any]
) -> list[str]:
  """What differs between two configs.

  Returns:
    Lines such as 'generator.bits.weights: 8 -> 4'; none where they are equal.
  """
  before, after = leaves(old), leaves(new)
  lines = []
  for path in before | after:
    values = [
      repr(flat[path]) if path in flat else 'absent' for flat in (before, after)
    ]
    if values[0] != values[1]:
      lines.append(f'{path}: {" -> ".join(values)}')
  return lines
