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

EXAMPLE = '--config=mnist:bits=8,seed=1'
# The folder of the experiments that come with the package. In a checkout it is
# a link to experiments/ at the top.
SHIPPED = Path(__file__).parents[1] / 'experiments'


def split(value: str) -> tuple[str, str | None]:
  """(experiment, config string) of what --config says; None without a colon.

  The experiment is the name of one that ships with the package, or a file.

  Raises:
    UserError: there is no such experiment.
  """
  experiment, colon, arg = value.partition(':')
  experiment = expand_home(experiment)
  find(experiment)
  return experiment, arg if colon else None


def find(experiment: str) -> Path:
  """The file of an experiment: `mnist` ships with the package.

  Raises:
    UserError: there is none, with the nearest name and what there is.
  """
  path = Path(experiment)
  shipped = {page.stem: page for page in sorted(SHIPPED.glob('*.py'))}
  if experiment in shipped:
    return shipped[experiment]
  if path.is_file() and path.suffix == '.py':
    return path
  near = {name: repr(name) for name in shipped}
  near |= {page.stem: str(page) for page in path.parent.glob('*.py')}
  hint = did_you_mean(path.stem, near, shown=near.__getitem__)
  where = '' if path.is_absolute() else f' in {os.getcwd()}'
  raise UserError(
    f'--config: {experiment!r} is neither an experiment file{where} nor one of '
    f'those that come with the package, {", ".join(shipped)}'
    + (f'; {hint}' if hint else '')
  )


@contextlib.contextmanager
def explained(experiment: str) -> Iterator[None]:
  """Turns what an experiment's file raises into a sentence with its line.

  Raises:
    UserError: anything was raised; a `UserError` is left as it is.
  """
  file = os.path.abspath(find(experiment))
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
    where = f'{experiment}, line {lines[-1]}' if lines else experiment
    raise UserError(f'{where}: {type(error).__name__}: {what}') from None


def load(experiment: str) -> ModuleType:
  """The module of an experiment's file.

  Raises:
    UserError: there is no such file, or it cannot be run.
  """
  spec = importlib.util.spec_from_file_location('experiment', find(experiment))
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  with explained(experiment):
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
    experiment, arg = split(argument)
    module = load(experiment)
    if not callable(getattr(module, 'get_config', None)):
      raise UserError(
        f'{experiment} has no function get_config(arg); take '
        f'{SHIPPED}/digits.py for an example'
      )
    with explained(experiment):
      config = module.get_config(*([] if arg is None else [arg]))
    if not isinstance(config, ConfigDict):
      raise UserError(f'get_config in {experiment!r} returns no ConfigDict')
    missing = KEYS.keys() - leaves(config).keys()
    if missing:
      raise UserError(
        f'get_config in {experiment!r} returns a config without '
        f'{min(missing)}; begin with qgan_jax.config.base(), which has all keys'
      )
    return config.lock()
