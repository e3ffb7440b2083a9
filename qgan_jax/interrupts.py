"""Ctrl-C, answered at once."""

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import threading

# Seconds that the main thread is given to answer by itself.
_BEFORE_WORDS = 0.3
_BEFORE_END = 2.0


@contextlib.contextmanager
def acknowledged() -> Iterator[None]:
  """Says that Ctrl-C was seen, whatever the main thread is doing.

  Python handles a signal between two of its own instructions: after a minute,
  where it waits for a compiler for that long. Here a thread is told of it by
  the system. It says so where nothing has happened a moment after, and ends the
  process where nothing has a moment after the second. Files are written so that
  a process may end at any time.

  Example:
    >>> with acknowledged():
    ...   total = sum(range(10))
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  left = threading.Event()

  def watch() -> None:
    seen = 0
    while numbers := os.read(reader, 1):
      if numbers[0] != signal.SIGINT:
        continue
      seen += 1
      if seen == 1 and not left.wait(_BEFORE_WORDS):
        print(
          '\nCtrl-C: what is being computed has to end first; once more ends '
          'at once',
          file=sys.stderr,
          flush=True,
        )
      elif seen > 1 and not left.wait(_BEFORE_END):
        os._exit(128 + signal.SIGINT)

  thread = threading.Thread(target=watch, name='interrupts', daemon=True)
  previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  thread.start()
  try:
    yield
  finally:
    left.set()
    signal.set_wakeup_fd(previous)
    os.close(writer)
    thread.join()
    os.close(reader)
