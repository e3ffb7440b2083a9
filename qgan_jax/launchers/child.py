"""Becomes a task's command, bound to its cores; it ends if its parent dies.

  python child.py PARENT CORE,CORE… COMMAND…

A program of its own, since in a process with threads Python code must not run
between fork and exec. It imports the standard library alone, to start fast.
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
    sys.exit(128 + signal.SIGTERM)  # The parent died before prctl was called.
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
