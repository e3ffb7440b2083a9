"""Prints what a run is doing, one line for each phase."""

from collections.abc import Iterator
import contextlib
import sys
import time


@contextlib.contextmanager
def phase(what: str, *, shown: bool = True) -> Iterator[None]:
  """Prints on stderr what begins, and how long it took.

  Args:
    what: what is done, such as 'reading the data'.
    shown: False for processes that print nothing.

  Example:
    >>> with phase('counting'):
    ...   total = sum(range(10))
  """
  if not shown:
    yield
    return
  print(f'{what}…', file=sys.stderr, flush=True)
  start = time.perf_counter()
  yield
  seconds = time.perf_counter() - start
  print(f'{what}: {seconds:.1f} s', file=sys.stderr, flush=True)
