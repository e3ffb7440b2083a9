import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from qgan_jax.training.allocator import keep_freed_memory
if sys.argv[1] == 'keep':
  keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def step(size=100 * 2**20):
  block = libc.malloc(size)
  libc.memset(block, 1, size)
  libc.free(block)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
  step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, how],
    capture_output=True,
    text=True,
    check=True,
  )
  return int(done.stdout)


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='an allocator of another kind'
)
def test_memory_that_is_freed_is_there_for_the_next_step():
  pages = 100 * 2**20 // 4096
  # Where the kernel gives huge pages, 512 at once.
  assert page_faults('leave') >= 3 * pages // 512
  assert page_faults('keep') < 20
