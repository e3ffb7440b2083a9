"""Keeps compiled programs on the disk, so that the next run starts at once.

JAX's cache knows a program by its computation, XLA's flags and versions. On a
CPU the compiled code depends on two things more, which it does not know: the
instructions of the processor, and the number of threads, by which sums are
split. So programs of other processors and threads lie in other folders.
"""

import hashlib
import os
from pathlib import Path
import platform

import jax

from qgan_jax.training.machine import num_cores

# Programs that compile faster are not worth a file.
_LEAST_SECONDS = 0.5
_CPU_INFO = Path('/proc/cpuinfo')


def keep_programs() -> None:
  """Makes JAX keep what it compiles, in `qgan_jax/programs` of the XDG cache.

  Where JAX_COMPILATION_CACHE_DIR names a folder, that is used as it is; where
  there is no home folder, nothing is kept. A file that is damaged, or cannot be
  written, is a warning of JAX's, and the program is compiled.
  """
  if jax.config.values['jax_compilation_cache_dir'] is not None:
    return
  try:
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
  except RuntimeError:
    return
  folder = cache / 'qgan_jax' / 'programs' / machine()
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update(
    'jax_persistent_cache_min_compile_time_secs', _LEAST_SECONDS
  )


def machine() -> str:
  """What a CPU's compiled code depends on, beside JAX's own key: a digest."""
  try:
    # The first processor's; its speed and number change.
    lines = _CPU_INFO.read_text().partition('\n\n')[0].splitlines()
  except OSError:
    lines = []
  kept = [x for x in lines if x.startswith(('flags', 'Features', 'model name'))]
  threads = os.environ.get('NPROC'), num_cores()
  text = '\n'.join([platform.machine(), platform.processor(), *kept])
  return hashlib.sha256(f'{text}\n{threads}'.encode()).hexdigest()[:16]
