"""The flags of a command that takes an experiment: --config and --config.KEY.

A command calls `define_flags`, defines flags of its own, and then calls
`parse_flags`. Whatever a person can get wrong comes out as a `UserError`.
"""

from collections.abc import Sequence
import re
import sys
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags, FrozenConfigDict

from qgan_jax import errors
from qgan_jax.config import check, experiments, grammar, keys, reference
from qgan_jax.config.resolution import base, resolve
from qgan_jax.config.unused import refuse_unused
from qgan_jax.errors import UserError

# --help lists flags by the module that defines them. With this, it lists
# --config with the flags of the command that calls `define_flags`.
flags.disclaim_key_flags()


class Experiment(NamedTuple):
  """What the command line asks for.

  Attributes:
    config: resolved, frozen and validated.
    file: the experiment: its file, or the name of one of the package's.
    arg: its config string as given, '' for none.
    overrides: what --config.KEY=VALUE flags set, by path.
  """

  config: FrozenConfigDict
  file: str
  arg: str
  overrides: dict[str, Any]


def define_flags(argv: Sequence[str], flag_values: flags.FlagValues) -> None:
  """Defines --config, and with it every --config.KEY, and --help_config.

  Args:
    argv: the arguments that will be parsed.
    flag_values: where the flags are defined.
  """
  try:
    config_flags.DEFINE_config_file(
      'config',
      None,
      'An experiment and settings that replace its own, such as '
      f'{experiments.EXAMPLE.partition("=")[2]}. A flag can set any key, too: '
      '--config.batch_size=128',
      flag_values=flag_values,
      sys_argv=list(argv),
    )
  except flags.Error as error:  # Of a --flagfile that cannot be read.
    raise UserError(str(error)) from None
  flag_values['config'].parser = experiments.ConfigParser()
  flags.DEFINE_bool(
    'help_config',
    False,
    'Prints every key of --config, with its meaning, default and value.',
    flag_values=flag_values,
  )


def parse_args(args: Sequence[str]) -> Experiment:
  """The experiment that a command with these arguments would run.

  Args:
    args: --config=… and --config.KEY=… alone.

  Raises:
    UserError: as `parse_flags`.
  """
  flag_values = flags.FlagValues()
  define_flags(args, flag_values)
  return parse_flags(args, flag_values)


def parse_flags(
  argv: Sequence[str],
  flag_values: flags.FlagValues,
  description: str | None = None,
) -> Experiment:
  """Parses the arguments of a command that takes an experiment.

  Args:
    argv: the arguments, without the program's name.
    flag_values: where `define_flags` defined --config.
    description: what --help says; see `errors.parse_flags`.

  Returns:
    The experiment; the command's other flags are in `flag_values`.

  Raises:
    UserError: the command line, the experiment's file or a value is wrong.
    SystemExit: after --help or --help_config.
  """
  given = read_flags(argv, flag_values, description)
  return experiment_of(flag_values, *given)


def experiment_of(
  flag_values: flags.FlagValues, file: str, arg: str, overrides: dict[str, Any]
) -> Experiment:
  """The experiment of flags that `read_flags` has parsed.

  Raises:
    UserError: it is not complete, or a value is wrong.
  """
  config = resolve(flag_values.config)
  check.validate(config)
  refuse_unused(config, [*grammar.parse(arg), *overrides])
  return Experiment(config, file, arg, overrides)


def read_flags(
  argv: Sequence[str],
  flag_values: flags.FlagValues,
  description: str | None = None,
) -> tuple[str, str, dict[str, Any]]:
  """Parses like `parse_flags`, but does not ask whether the config is complete.

  Returns:
    file, arg and overrides of an `Experiment`.

  Raises:
    UserError: the command line or the experiment's file is wrong.
    SystemExit: after --help or --help_config.
  """
  file, arg = _find_config(argv)
  _check_overrides(argv)
  errors.parse_flags(argv, flag_values, description)
  if flag_values.help_config:
    print(reference.listing(flag_values.config or base()), end='')
    sys.exit(0)
  if not file:
    raise UserError(
      f'no experiment is given; say for example {experiments.EXAMPLE}'
    )
  flag: Any = flag_values['config']
  return file, arg, dict(flag.override_values)


def _find_config(argv: Sequence[str]) -> tuple[str, str]:
  """(file, config string) of --config; blank where it is not given."""
  found = []
  for i, argument in enumerate(argv):
    match = re.fullmatch(r'--?config(=(.*))?', argument, re.DOTALL)
    if match:
      found.append(match[2] if match[1] else ' '.join(argv[i + 1 : i + 2]))
  if len(found) > 1:
    raise UserError(
      f'--config is given twice, {found[0]!r} and {found[1]!r}; keep one'
    )
  if not found:
    return '', ''
  file, arg = experiments.split(found[0])
  return file, arg or ''


def _check_overrides(argv: Sequence[str]) -> None:
  """Refuses --config.KEY=VALUE with an unknown key or a value of no use."""
  for argument in argv:
    match = re.match(r'--?(?:no)?config\.([^=]*)(=)?', argument)
    if not match:
      continue
    path = keys.path_of(match[1])
    if path != match[1]:
      raise UserError(
        f'--config.{match[1]} is a short name, which only the config string '
        f'takes; say --config.{path}'
      )
    if match[2]:
      text = argument[match.end() :]
      grammar.convert(path, text, keys.KEYS[path].kind.type)
