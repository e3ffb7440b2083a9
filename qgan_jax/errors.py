"""What commands share: their flags, and errors that a person can cause.

A command is a function of its arguments that defines its flags when it is
called, in a `FlagValues` of its own. So any number of commands can be imported,
and called, in one process.
"""

from collections.abc import Callable, Iterable, Sequence
import difflib
import os
import signal
import sys
from typing import NoReturn

from absl import flags


class UserError(Exception):
  """Something that the person at the keyboard can put right.

  The message is complete: what is wrong, with the value, and what to do.
  """


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

  A `UserError` becomes one line and exit code 2. A reader that closes the pipe
  early (`| head`) gets no traceback, nor does Ctrl-C.

  Args:
    main: the command: a function of the arguments, without the program's name,
      that returns its exit code, or None for 0.
  """
  try:
    code = main(sys.argv[1:])
    sys.stdout.flush()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    _drop_output()  # Ctrl-C ends the reader of a pipe, too.
    print('interrupted', file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except BrokenPipeError:
    _drop_output()
    sys.exit(128 + signal.SIGPIPE)
  sys.exit(code or 0)


def _drop_output() -> None:
  """Sends to nowhere what Python will still flush into a broken pipe."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    UserError: a flag is unknown or malformed, or something is no flag.
    SystemExit: after --help.
  """
  if description is not None:
    _add_common_flags(flag_values, description)
  if arguments:
    flag_values.set_gnu_getopt(True)
  try:
    rest = flag_values(['', *argv])[1:]
  except flags.Error as error:
    raise UserError(f'{error}; --help shows every flag') from None
  # Abseil's logging warns of every message until its own flags are parsed.
  flags.FLAGS.mark_as_parsed()
  if rest and not arguments:
    raise UserError(
      f'unexpected argument {rest[0]!r}; config strings follow the file, '
      '--config=experiments/mnist.py:bits=8'
    )
  return rest


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
  flag_values['helpshort'] = _HelpFlag('helpshort', short)
  flag_values['helpfull'] = _HelpFlag('helpfull', usage + str(flags.FLAGS))
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    # Flags with a short name are listed twice; a command's own come first.
    if name == flag.name and name not in flag_values:
      flag_values[name] = flag
