"""What the machine gives a process, whatever its accelerators are."""

import contextlib
import os
from pathlib import Path

# A container's limit, by version of its control groups: a number, or `max`.
_CONTAINER = (
  Path('/sys/fs/cgroup/memory.max'),
  Path('/sys/fs/cgroup/memory/memory.limit_in_bytes'),
)


def num_cores() -> int:
  """Cores that this process may use; those of the machine where it is unknown.

  Only Linux knows.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def memory() -> int | None:
  """Bytes that this machine or container has, used or not; None if unknown."""
  found = []
  if 'SC_PHYS_PAGES' in os.sysconf_names:
    found.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  # The file is there, with a number in it, in containers with a limit.
  for limit in _CONTAINER:
    with contextlib.suppress(OSError, ValueError):
      found.append(int(limit.read_text()))
  return min(found, default=None)
