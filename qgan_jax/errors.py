"""What commands share: their flags, and errors that a person can cause.

A command is a function of its arguments that defines its flags when it is
called, in a `FlagValues` of its own. So any number of commands can be imported,
and called, in one process.
"""

from collections.abc import Callable, Iterable, Sequence
import difflib
import errno
import importlib
import io
import math
import os
from pathlib import Path
import signal
import sys
from typing import Any, NoReturn

from absl import flags

from qgan_jax import interrupts

# --help lists flags by the module that defines them. With this, it lists those
# that are defined here with the command that calls.
flags.disclaim_key_flags()


class UserError(Exception):
  """Something that the person at the keyboard can put right.

  The message is complete: what is wrong, with the value, and what to do. Where
  several runs have failed, each has a message of its own: `args`.
  """

  def __str__(self) -> str:
    return '\n'.join(map(str, self.args))


def did_you_mean(
  name: str,
  names: Iterable[str],
  *,
  most: int = 1,
  shown: Callable[[str], str] = repr,
) -> str:
  """A question for a message about a name that does not exist.

  Args:
    name: what was given.
    names: what there is.
    most: how many of the names to suggest.
    shown: how a suggested name is written.

  Returns:
    "did you mean 'x'?" with the names that look most alike, or '' where none
    does.
  """
  nearest = difflib.get_close_matches(name, list(names), n=most)
  return f'did you mean {" or ".join(map(shown, nearest))}?' if nearest else ''


def run(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
  """Runs a command with the process's arguments, and ends the process.

  A `UserError` becomes one line and exit code 2, and so do a file or folder
  that cannot be used and a want of memory. A reader that closes the pipe early
  (`| head`) gets no traceback, nor does Ctrl-C, which is answered at once.
  Characters that the output cannot show become question marks.

  Args:
    main: the command: a function of the arguments, without the program's name,
      that returns its exit code, or None for 0.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')
  try:
    with interrupts.acknowledged():
      code = main(sys.argv[1:])
      sys.stdout.flush()
  except UserError as error:
    _refuse(*map(str, error.args))
  except KeyboardInterrupt:
    _drop_output()  # Ctrl-C ends the reader of a pipe, too.
    print('interrupted', file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except BrokenPipeError:
    _drop_output()
    sys.exit(128 + signal.SIGPIPE)
  except Exception as error:
    if _is_out_of_memory(error):
      _refuse(
        'there is not enough memory: make batch_size, channels or the number '
        'of samples smaller; a run goes on from its last checkpoint'
      )
    # An error of the system that is not of a path is no slip, but a fault.
    if not isinstance(error, OSError) or error.filename is None:
      raise
    _refuse(f'{os.fsdecode(error.filename)}: {error.strerror}')
  sys.exit(code or 0)


def _is_out_of_memory(error: Exception) -> bool:
  """Whether Python, the system, XLA or the loader of libraries says so."""
  return (
    isinstance(error, MemoryError)
    or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    or 'RESOURCE_EXHAUSTED' in str(error)
    or 'failed to map segment' in str(error)
  )


# Longest message, in characters: one that repeats a huge value is shortened.
_LONGEST = 2000


def _refuse(*messages: str) -> NoReturn:
  """Prints each message in one line, and ends the process with exit code 2."""
  lines = []
  for message in messages:
    line = ' '.join(message.splitlines())
    if len(line) > _LONGEST:
      line = f'{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}'
    lines.append(line)
  print('error: ' + '\n'.join(lines), file=sys.stderr)
  sys.exit(2)


def _drop_output() -> None:
  """Sends to nowhere what Python will still flush into a broken pipe."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def expand_home(path: str) -> str:
  """A path with `~` or `~name` at its start replaced by that home folder.

  Shells leave a `~` behind an equals sign, as in --out=~/a, to the command.

  Raises:
    UserError: there is no such home folder.
  """
  expanded = os.path.expanduser(path)
  if expanded.startswith('~'):
    name = path.partition('/')[0]
    raise UserError(
      f'{path}: the home folder {name} is not known; write the path in full'
    )
  return expanded


def cache_folder(purpose: str, default: str, given: str = '') -> Path:
  """A folder for what is made once and found again.

  Args:
    purpose: what it is there to do, for the error: 'cache classifiers'.
    default: its name among the package's in the user's cache.
    given: its name in the folder that `QGAN_JAX_CACHE` holds, if that is set;
      '' for that folder itself.

  Raises:
    UserError: there is no home folder, and none was given.
  """
  root = os.environ.get('QGAN_JAX_CACHE')
  if root:
    return Path(expand_home(root), given)
  try:
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
  except RuntimeError:
    raise UserError(
      f'there is no home folder to {purpose} in; set QGAN_JAX_CACHE to a '
      'folder that can be written'
    ) from None
  return Path(cache, 'qgan_jax', default)


class _PathParser(flags.ArgumentParser):
  """Reads the path of a file or folder; `~` stands for the home folder."""

  def parse(self, argument: str) -> str:
    return expand_home(argument)

  def flag_type(self) -> str:
    return 'path'


def define_module(values: flags.FlagValues) -> None:
  """Defines --module, for commands that read a network of your own."""
  flags.DEFINE_string(
    'module',
    None,
    'A Python module of your own to import first, because it defines the class '
    'of the network.',
    flag_values=values,
  )


def require(module: str, *, extra: str) -> Any:
  """Imports a module of an extra.

  Raises:
    UserError: it is not installed.
  """
  try:
    return importlib.import_module(module)
  except ImportError:
    raise UserError(
      f'{module.partition(".")[0]} is not installed: '
      f"pip install 'qgan_jax[{extra}]'"
    ) from None


def import_module(name: str | None) -> None:
  """Imports what was given as --module, if anything was.

  Raises:
    UserError: it cannot be imported.
  """
  try:
    if name:
      importlib.import_module(name)
  except Exception as error:  # Whatever a module of your own raises.
    raise UserError(
      f'--module={name} cannot be imported ({type(error).__name__}: {error}): '
      'give its name as Python imports it, with its folder in PYTHONPATH'
    ) from None


def define_path(name: str, help_: str, flag_values: flags.FlagValues) -> None:
  """Defines a flag that takes the path of a file or folder; None if unset."""
  serializer: flags.ArgumentSerializer[str] = flags.ArgumentSerializer()
  flags.DEFINE(_PathParser(), name, None, help_, flag_values, serializer)


def define_count(
  name: str,
  default: int | None,
  help_: str,
  flag_values: flags.FlagValues,
  *,
  least: int = 0,
) -> None:
  """Defines a flag that takes a whole number as an int32 holds it."""
  flags.DEFINE_integer(
    name,
    default,
    help_,
    lower_bound=least,
    upper_bound=2**31 - 1,
    flag_values=flag_values,
  )


def define_seed(help_: str, flag_values: flags.FlagValues) -> None:
  """Defines --seed, what a key of random numbers is made from: a uint32."""
  flags.DEFINE_integer(
    'seed',
    0,
    help_,
    lower_bound=0,
    upper_bound=2**32 - 1,
    flag_values=flag_values,
  )


def define_time_limit(default: int, flag_values: flags.FlagValues) -> None:
  """Defines --time_limit, of a program that a file holds, in seconds."""
  define_count(
    'time_limit',
    default,
    'Seconds that the program in a .onnx, .tflite or .stablehlo file may take '
    'to compile and to draw 64 images (fewer if they have more than 64×64 '
    'pixels).',
    flag_values,
    least=1,
  )


def parse_flags(
  argv: Sequence[str],
  flag_values: flags.FlagValues,
  description: str | None = None,
  *,
  arguments: bool = False,
) -> list[str]:
  """Parses arguments into flags that are already defined.

  Args:
    argv: the arguments, without the program's name.
    flag_values: where the flags are defined.
    description: what --help says before it lists the flags; None where only
      these flags are taken: no --help, and none of Abseil's, as --verbosity.
    arguments: takes what is no flag, too, before, between or after flags.

  Returns:
    What is no flag.

  Raises:
    UserError: a flag is unknown or malformed, its value is empty or a number
      that is not finite, or something is no flag.
    SystemExit: after --help.
  """
  own = list(flag_values)
  if description is not None:
    _add_common_flags(flag_values, description)
  if arguments:
    flag_values.set_gnu_getopt(True)
  try:
    rest = flag_values(['', *argv])[1:]
  except flags.Error as error:
    raise UserError(f'{error}; --help shows every flag') from None
  for name in own:
    if flag_values[name].present:
      _check_value(name, flag_values[name].value)
  # Abseil's logging warns of every message until its own flags are parsed.
  flags.FLAGS.mark_as_parsed()
  if rest and not arguments:
    raise UserError(
      f'unexpected argument {rest[0]!r}; config strings follow the file, '
      '--config=mnist:bits=8'
    )
  return rest


def _check_value(name: str, value: Any) -> None:
  """Refuses the values that no flag of a command has a use for."""
  values = value if isinstance(value, list) else [value]
  if '' in values or not values:
    raise UserError(f'--{name}: a value is empty; give one, or leave it out')
  if isinstance(value, float) and not math.isfinite(value):
    raise UserError(f'--{name}={value}: give a finite number')


class _HelpFlag(flags.BooleanFlag):
  """Prints a text and ends the process, with exit code 0."""

  def __init__(self, name: str, text: str, short_name: str | None = None):
    super().__init__(name, False, 'show this help', short_name)
    self._text = text

  def parse(self, argument: str | bool) -> None:
    super().parse(argument)
    if self.value:
      print(self._text)
      sys.exit(0)


def _add_common_flags(flag_values: flags.FlagValues, description: str) -> None:
  """Adds --help, --helpfull and the flags of libraries to a command's own."""
  own = flag_values.get_help(include_special_flags=False)
  usage = f'{description}\nflags:\n{own}\n'
  short = f'{usage}\nTry --helpfull to get a list of all flags.'
  flag_values['help'] = _HelpFlag('help', short, '?')
  flag_values['h'] = _HelpFlag('h', short)
  flag_values['helpshort'] = _HelpFlag('helpshort', short)
  flag_values['helpfull'] = _HelpFlag('helpfull', usage + str(flags.FLAGS))
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    # Flags with a short name are listed twice; a command's own come first.
    if name == flag.name and name not in flag_values:
      flag_values[name] = flag
