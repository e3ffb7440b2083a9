"""Errors that a person can cause, and how commands report them."""

from collections.abc import Callable
import sys
from typing import NoReturn


class UserError(Exception):
  """Something that the person at the keyboard can put right.

  The message is complete: what is wrong, with the value, and what to do.
  """


def run(main: Callable[[], None]) -> NoReturn:
  """Runs a command's body; a `UserError` becomes one line and exit code 2."""
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  sys.exit(0)
