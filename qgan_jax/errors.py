"""Errors that a person can cause, and how commands report them."""

from collections.abc import Callable, Sequence
import os
import signal
import sys
from typing import NoReturn

from absl import app, flags


class UserError(Exception):
  """Something that the person at the keyboard can put right.

  The message is complete: what is wrong, with the value, and what to do.
  """


def run(main: Callable[[], None]) -> NoReturn:
  """Runs a command's body; a `UserError` becomes one line and exit code 2.

  A reader that has seen enough of the output (`| head`) is no error, nor is a
  person who has (Ctrl-C).
  """
  try:
    main()
    sys.stdout.flush()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    _drop_output()  # Whoever read it was interrupted, too.
    print('interrupted', file=sys.stderr)
    sys.exit(128 + signal.SIGINT)
  except BrokenPipeError:
    _drop_output()
    sys.exit(128 + signal.SIGPIPE)
  sys.exit(0)


def _drop_output() -> None:
  """Python flushes once more as it ends, and must not find a broken pipe."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_flags(
  argv: Sequence[str],
  flag_values: flags.FlagValues = flags.FLAGS,
  *,
  arguments: bool = False,
) -> list[str]:
  """Parses a command line into flags that are already defined.

  Args:
    argv: `sys.argv`.
    flag_values: where the flags are defined.
    arguments: takes what is no flag, too, before, between or after flags.

  Returns:
    What is no flag.

  Raises:
    UserError: a flag is unknown or malformed, or something is no flag.
    SystemExit: after --help.
  """
  if flag_values is flags.FLAGS:
    app.define_help_flags()
  if arguments:
    flag_values.set_gnu_getopt(True)
  try:
    rest = flag_values(list(argv))
  except flags.Error as error:
    raise UserError(f'{error}; --help shows every flag') from None
  except SystemExit:
    sys.exit(0)  # --help worked; Abseil exits with 1.
  if rest[1:] and not arguments:
    raise UserError(
      f'unexpected argument {rest[1]!r}; config strings follow the file, '
      '--config=experiments/mnist.py:bits=8'
    )
  return rest[1:]
