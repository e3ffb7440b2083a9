"""What a run is doing, in a line for each phase, so that it is never silent."""

from collections.abc import Iterator
import contextlib
import sys
import time


@contextlib.contextmanager
def phase(what: str, *, shown: bool = True) -> Iterator[None]:
  """Says on stderr what begins, and how long it took.

  Args:
    what: is done, as in 'reading the data'.
    shown: False for the processes of a run that stay silent.

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
