"""Becomes a task's command, bound to its cores and to its parent's life.

  python child.py PARENT CORE,CORE… COMMAND…

A file of its own, for the standard library alone: it stands before every
command, and what it does cannot be done after a fork of a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
  """Becomes the command."""
  parent, cores, *command = sys.argv[1:]
  if sys.platform == 'linux':
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if cores:
      os.sched_setaffinity(0, map(int, cores.split(',')))
  if os.getppid() != int(parent):
    sys.exit(128 + signal.SIGTERM)  # It was gone before it could be told.
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
