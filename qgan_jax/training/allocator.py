"""The C library's allocator, told to keep what a step gives back.

XLA on a CPU allocates a step's temporaries, tens of megabytes, anew in every
step. glibc by default takes blocks of 32 MiB and more from the kernel and gives
them back at once, so that every step pays for every page again: up to a quarter
of its time. `benchmarks/train_step.py --allocator=default` shows it.
"""

import ctypes

# Of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
  """Makes freed memory stay with the process, for the next step to reuse.

  For the whole process, and best before threads start: those that run by then
  keep the arenas that they have. Memory goes back when the process ends. Where
  the C library is not glibc, nothing happens.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):  # macOS, musl, Windows.
    return
  # Only the first arena can grow by more than 64 MiB without asking for pages.
  mallopt(_M_ARENA_MAX, 1)
  mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
  mallopt(_M_TRIM_THRESHOLD, -1)
