"""The folder of a run: records its config, and refuses another one."""

import importlib.metadata
import json
import os
from pathlib import Path
import platform
from typing import Any

import jax

from qgan_jax import config as config_lib
from qgan_jax.config import flags as config_flags
from qgan_jax.errors import UserError

_VERSIONS = ('qgan_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def open_folder(
  workdir: Path,
  experiment: config_flags.Experiment,
  dataset: str,
  *,
  primary: bool,
) -> None:
  """Records what the run is, or makes sure that it is the same as before.

  Args:
    workdir: the run's folder.
    experiment: what is run.
    dataset: name of the data set that is really used.
    primary: whether this process writes.

  Raises:
    UserError: the folder holds a run with another config, with what differs,
      or cannot be written.
  """
  path = workdir / 'config.json'
  record = {
    'config': json.loads(config_lib.to_json(experiment.config)),
    'file': experiment.file,
    'arg': experiment.arg,
    'overrides': experiment.overrides,
    'dataset': dataset,
    'versions': versions(),
    'devices': [str(d.device_kind) for d in jax.devices()],
  }
  if path.exists():
    try:
      old = json.loads(path.read_text())
      before = config_lib.from_json(json.dumps(old['config']))
      lines = config_lib.diff(before, experiment.config)
      if old['dataset'] != dataset:
        lines.append(f'dataset: {old["dataset"]} -> {dataset}')
    except (
      OSError, ValueError, LookupError, TypeError, AttributeError
    ) as error:  # fmt: skip
      raise UserError(f'{path} is no record of a run: {error!r}') from None
    if lines:
      raise UserError(
        f'{workdir} holds a run with another config; take another --workdir, '
        f'or remove it. What differs:\n  ' + '\n  '.join(lines)
      )
  elif primary:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(
        f'cannot make the folder {workdir}: {error.strerror}; give another '
        '--workdir'
      ) from None
    write_json(path, record)


def read_run(workdir: Path) -> tuple[Any, str]:
  """(the config of a run, the data set that it really used).

  Raises:
    UserError: it is not the folder of a run.
  """
  try:
    record = json.loads((workdir / 'config.json').read_text())
    return config_lib.from_json(json.dumps(record['config'])), record['dataset']
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise UserError(f'{workdir} is not the folder of a run: {error}') from None


def write_json(path: Path, value: Any) -> None:
  """Writes a file that is there whole or not at all.

  Raises:
    UserError: it cannot be written.
  """
  text = json.dumps(value, indent=2) + '\n'
  partial = path.with_name(f'{path.name}.partial')
  try:
    partial.write_text(text)
    os.replace(partial, path)
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}') from None


def versions() -> dict[str, str]:
  """Python's and the packages' versions, for provenance."""
  found = {'python': platform.python_version()}
  for name in _VERSIONS:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = 'not installed'
  return found
