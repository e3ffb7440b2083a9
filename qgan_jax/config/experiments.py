"""Runs a person's experiment file: its mistakes come out as sentences."""

from collections.abc import Iterator
import contextlib
import importlib.util
import os
from pathlib import Path
import traceback
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict

from qgan_jax.config.keys import KEYS
from qgan_jax.config.resolution import leaves
from qgan_jax.errors import did_you_mean, expand_home, UserError

EXAMPLE = '--config=experiments/mnist.py:bits=8,seed=1'


def split(value: str) -> tuple[str, str | None]:
  """(file, config string) of what --config says; None without a colon.

  Raises:
    UserError: there is no such file.
  """
  file, colon, arg = value.partition(':')
  file = expand_home(file)
  _check_file(file)
  return file, arg if colon else None


def _check_file(file: str) -> None:
  """Refuses an experiment's file that is not there, and names the nearest."""
  path = Path(file)
  if path.is_file() and path.suffix == '.py':
    return
  folders = {path.parent, Path('experiments')}
  near = {p.stem: p for folder in folders for p in folder.glob('*.py')}
  hint = did_you_mean(path.stem, near, shown=lambda stem: str(near[stem]))
  where = '' if path.is_absolute() else f' in {os.getcwd()}'
  raise UserError(
    f'--config: {file!r} is no experiment file{where}; '
    + (hint or f'say {EXAMPLE}')
  )


@contextlib.contextmanager
def explained(file: str) -> Iterator[None]:
  """Turns what an experiment's file raises into a sentence with its line.

  Raises:
    UserError: anything was raised; a `UserError` is left as it is.
  """
  try:
    yield
  except UserError:
    raise
  except (Exception, SystemExit) as error:  # noqa: BLE001
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename == file
    ]
    what = str(error)
    if isinstance(error, SyntaxError) and error.filename == file:
      lines, what = [error.lineno], error.msg
    where = f'{file}, line {lines[-1]}' if lines else file
    raise UserError(f'{where}: {type(error).__name__}: {what}') from None


def load(file: str) -> ModuleType:
  """The module of an experiment's file.

  Raises:
    UserError: the file cannot be run.
  """
  spec = importlib.util.spec_from_file_location('experiment', file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  with explained(file):
    spec.loader.exec_module(module)
  return module


class ConfigParser(flags.ArgumentParser):
  """Reads what --config says: runs the file's `get_config`."""

  def parse(self, argument: str | ConfigDict) -> ConfigDict:
    """The locked config; one that is read already is left as it is.

    Raises:
      UserError: the file is not there or cannot be run, or it gives no config
        that has all keys.
    """
    if isinstance(argument, ConfigDict):
      return argument
    file, arg = split(argument)
    module = load(file)
    if not callable(getattr(module, 'get_config', None)):
      raise UserError(
        f'{file} has no function get_config(arg); take experiments/digits.py '
        'for an example'
      )
    with explained(file):
      config = module.get_config(*([] if arg is None else [arg]))
    if not isinstance(config, ConfigDict):
      raise UserError(f'get_config in {file!r} returns no ConfigDict')
    missing = KEYS.keys() - leaves(config).keys()
    if missing:
      raise UserError(
        f'get_config in {file!r} returns a config without {min(missing)}; '
        'begin with qgan_jax.config.base(), which has all keys'
      )
    return config.lock()
