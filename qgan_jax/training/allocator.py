"""Makes the C library's allocator keep the memory that a step frees.

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

  It holds for the whole process, until that ends. Call it before threads start:
  running threads keep the arenas that they have. Where the C library is not
  glibc, nothing happens.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):  # macOS, musl, Windows.
    return
  # One arena: all but the first consist of heaps of at most 64 MiB.
  mallopt(_M_ARENA_MAX, 1)
  mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
  mallopt(_M_TRIM_THRESHOLD, -1)
