"""What a config is called: its shortest config string, and its folder."""

import hashlib
import os
from pathlib import Path
import re
from typing import Any

from ml_collections import ConfigDict

from qgan_jax.config import grammar
from qgan_jax.config.keys import KEYS, NETWORKS, ROLES, SHARED, SHORT_NAMES
from qgan_jax.config.kinds import PATH
from qgan_jax.config.resolution import base, leaves, resolve

_SAFE_VALUE = re.compile(r'[A-Za-z0-9._+-]*')
# File systems take 255 characters: this leaves room for a hash and the seed.
_LONGEST_NAME = 200


def config_string_of(config: ConfigDict) -> str:
  """The config string that a resolved config amounts to.

  Bits first, then what differs from `base`, whatever file or flag said so:
  `resolve(override(base(experiment=…, seed=…), string))` is the config again,
  as long as no value holds a comma.

  Args:
    config: what `resolve` returned.
  """
  return grammar.join(_settings(config))


def public_string_of(config: ConfigDict) -> str:
  """As `config_string_of`, for files that are given away.

  Paths tell how a person's machine is laid out: of each, such as that of the
  data set, the last part alone is left.

  Args:
    config: what `resolve` returned.
  """
  settings = {SHORT_NAMES.get(k, k): v for k, v in _settings(config).items()}
  return grammar.join(
    {KEYS[k].short or k: v for k, v in _without_folders(settings).items()}
  )


def public_leaves(config: ConfigDict) -> dict[str, Any]:
  """Every value of a config by its dotted path, of paths the last part alone.

  Args:
    config: what `resolve` returned.
  """
  return _without_folders(leaves(config))


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
  """Values by dotted path; of those that are paths, the last part alone."""
  found = dict(values)
  for path, value in values.items():
    if value and path in KEYS and KEYS[path].kind is PATH:
      found[path] = Path(value).name
  source, colon, folder = found.get('data.source', '').partition(':')
  if folder:
    found['data.source'] = source + colon + Path(folder).name
  return found


def _settings(config: ConfigDict) -> dict[str, Any]:
  """The pairs of `config_string_of`."""
  target = leaves(config)
  settings = _bits_settings(config)

  def resolved() -> dict[str, Any]:
    return leaves(resolve(base(experiment=config.experiment, **settings)))

  current = resolved()
  # Keys that others follow from come first, those without a short name last.
  names = {name: SHORT_NAMES[name] for name in ('steps', 'init_from')}
  names |= SHORT_NAMES
  names |= {path: path for path in sorted(KEYS) if not KEYS[path].short}
  shared = {key.path for key in SHARED}
  for name, path in names.items():
    paths = [path]
    if path in shared:
      paths = [f'{network}.{path}' for network in NETWORKS]
    wanted = {target.get(path) for path in paths}
    if path == 'seed' or len(wanted) > 1 or wanted == {None}:
      continue
    if wanted != {current.get(path) for path in paths}:
      settings[name] = wanted.pop()
      current = resolved()  # This setting may have changed other values, too.
  return settings


def _bits_settings(config: ConfigDict) -> dict[str, Any]:
  """The fewest settings that give every role of every network its bits."""
  keys = [KEYS[f'{n}.bits.{r}'] for n in NETWORKS for r in ROLES]
  widths = [config[n].bits[r] for n in NETWORKS for r in ROLES]
  # `bits`, then those of networks, then those of roles. The first two do not
  # speak of activations where the bits of weights are a grid's exponent.
  levels = [*zip(*(key.broader for key in keys), strict=True)]
  for names in levels[2 if config.precision.quantizer == 'grid' else 0 :]:
    settings = dict(zip(names, widths, strict=True))
    if [settings[name] for name in names] == widths:
      return settings
  return {key.short: n for key, n in zip(keys, widths, strict=True)}


def default_workdir(config: ConfigDict) -> str:
  """Where a run lies unless told otherwise: runs/EXPERIMENT/STRING-sSEED.

  Configs that differ have folders that differ: a string that is too long for
  a folder, or holds what a folder's name should not, ends in a hash.

  Args:
    config: what `resolve` returned.
  """
  settings = _settings(config)
  name = grammar.join(settings)
  safe = all(_SAFE_VALUE.fullmatch(str(value)) for value in settings.values())
  if not safe or len(name) > _LONGEST_NAME:
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    name = re.sub(r'[^A-Za-z0-9=,._+-]', '_', name)[:_LONGEST_NAME]
    name = f'{name.rstrip(",")}~{digest}'
  return os.path.join('runs', config.experiment, f'{name}-s{config.seed}')
