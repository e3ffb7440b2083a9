"""The folder of a run: records the run's config, and refuses any other."""

from collections.abc import Iterable, Mapping
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import re
import sys
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from qgan_jax import config as config_lib
from qgan_jax import models, records
from qgan_jax.config import flags as config_flags
from qgan_jax.config.resolution import leaves
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.runs import pictures

_VERSIONS = ('qgan_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def identity(config: Any, dataset: str) -> dict[str, Any]:
  """What identifies a run, as JSON in its `config.json` and its checkpoints."""
  return {'config': json.loads(config_lib.to_json(config)), 'dataset': dataset}


def open_folder(
  workdir: Path,
  experiment: config_flags.Experiment,
  dataset: ImageDataset,
  *,
  saved: Iterable[tuple[Path, Mapping[str, Any]]] = (),
  primary: bool,
) -> None:
  """Records what the run is, or checks that it is the same as before.

  Args:
    workdir: the run's folder.
    experiment: what is run.
    dataset: what is really used.
    saved: existing checkpoints, each with the `identity` of its run.
    primary: whether this process writes.

  Raises:
    UserError: the folder holds a run with another config (the message lists the
      differences), one of its files is damaged, or it cannot be written.
  """
  path = workdir / 'config.json'
  record = {
    **identity(experiment.config, dataset.name),
    'class_names': list(dataset.class_names),
    'file': experiment.file,
    'arg': experiment.arg,
    'overrides': experiment.overrides,
    # Where relative paths start; paths are bytes, and records hold text.
    'cwd': os.getcwdb().decode(errors='replace'),
    'versions': versions(),
    'devices': [str(d.device_kind) for d in jax.devices()],
  }
  before = records.read(path, records.RUN)
  for source, old in [*([(path, before)] if before else []), *saved]:
    lines = differences(config_of(old['config'], source), experiment.config)
    lines += pictures.differences(workdir, old['dataset'], dataset)
    if lines:
      raise UserError(
        f'{workdir} holds a run with another config, says {source}; take '
        'another folder, or remove it. What differs: ' + '; '.join(lines)
      )
  if not primary:
    return
  if before is None:
    pictures.record(workdir, dataset)
    records.write_json(path, record)
    return
  where = experiment.config.data.dir
  earlier = before['config'].get('data', {}).get('dir')
  if _place(earlier, before) != _place(where, record):
    # So that scoring the run again finds the data where they lie now.
    print(f'{dataset.name} is taken from data.dir={where} now', file=sys.stderr)
    now = identity(experiment.config, dataset.name) | {'cwd': record['cwd']}
    records.write_json(path, before | now)


def _place(path: str | None, record: Mapping[str, Any]) -> str | None:
  """A path in full, if it is relative to where a record was made."""
  return path and os.path.join(record.get('cwd', ''), path)


def _with_files_found(config: Any, record: Mapping[str, Any]) -> Any:
  """A config whose files lie where its run began, if they do not lie here."""
  values = config.to_dict()
  for section, key in (('data', 'dir'), ('scores', 'inception_weights')):
    path = values[section][key]
    place = _place(path, record)
    if place and not os.path.exists(path) and os.path.exists(place):
      values[section][key] = place
  if config.data.source == f'folder:{config.data.dir}':
    values['data']['source'] = f'folder:{values["data"]["dir"]}'
  return FrozenConfigDict(values)


def differences(old: Any, new: Any) -> list[str]:
  """Lines with the differences of two configs, except for places of data."""
  return config_lib.diff(_without_place(old), _without_place(new))


def _without_place(config: Any) -> dict[str, Any]:
  values = leaves(config)
  values.pop('data.dir', None)
  source = values.get('data.source')
  if source is not None:
    # Of a folder of pictures, the source is the place.
    values['data.source'] = re.sub('^folder:.*', 'folder', source, flags=re.S)
  return values


def config_of(record: Mapping[str, Any], source: Path) -> Any:
  """A config from a file, in the form of this version.

  Raises:
    DamagedFile: it is not a config.
    UserError: it has a key or a value that this version does not know.
  """
  try:
    return config_lib.from_json(json.dumps(record))
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise records.DamagedFile(f'{source} is damaged: {error}') from None


def read_run(workdir: Path) -> tuple[Any, str]:
  """(the config of a run, the name of the data set that it really used).

  A relative `data.dir` or `scores.inception_weights` that is not here is the
  one where the run was started.

  Raises:
    UserError: it is not the folder of a run, or its record is damaged.
  """
  path = workdir / 'config.json'
  record = records.read(path, records.RUN)
  if record is None:
    raise UserError(
      f'{workdir} is not the folder of a run: it has no config.json'
    )
  config = config_of(record['config'], path)
  model = config.model.name
  # A folder may be a stranger's: what it names is not imported for it.
  known = model in models.NAMES or model.startswith(f'{models.GIVEN}:')
  if not known and model not in sys.modules:
    raise UserError(
      f'the networks of {workdir} are in the module {model}, which is not '
      f'imported because a folder says so; say --module={model}'
    )
  try:
    config_lib.validate(config)
  except UserError as error:
    raise records.DamagedFile(f'{path} is damaged: {error}') from None
  return _with_files_found(config, record), record['dataset']


def read_start(folder: str) -> Any:
  """The config of a run that another one starts from.

  Raises:
    UserError: the folder holds no run.
  """
  try:
    return read_run(Path(folder))[0]
  except UserError as error:
    raise UserError(
      f'init_from={folder}: that is no folder of a run ({error}); give one '
      'that qgan_jax.main has left'
    ) from None


def make_folder(folder: Path) -> None:
  """Makes a folder inside that of a run, if it does not exist.

  Raises:
    UserError: it cannot be made.
  """
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
      f'cannot make the folder {folder}: {error.strerror}'
    ) from None


def versions() -> dict[str, str]:
  """Versions of Python and of the packages, as a record."""
  found = {'python': platform.python_version()}
  for name in _VERSIONS:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'
  return found
