"""Starts the package's commands as a person would: in their own processes."""

import contextlib
import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[1]
# Programs of tests run once or twice: most of the time is the compiler's, and
# these halve it. The first two leave optimizations out; the third compiles a
# program in one part, because every part costs a start of its own.
XLA_FLAGS = (
  '--xla_backend_optimization_level=0 '
  '--xla_cpu_use_fusion_emitters=false '
  '--xla_cpu_parallel_codegen_split_count=1'
)


@contextlib.contextmanager
def commands(cache):
  """Yields start(MODULE, *ARGUMENTS, cwd=…, **VARIABLES); ends what is left.

  Args:
    cache: a folder for what processes may share.
  """
  env = {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    # Compiled once for all processes.
    'JAX_COMPILATION_CACHE_DIR': str(cache / 'jax'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'QGAN_JAX_CACHE': str(cache / 'classifiers'),
    'XLA_FLAGS': XLA_FLAGS,
  }
  processes = []

  def start(module, *arguments, cwd=ROOT, **variables):
    process = subprocess.Popen(
      [sys.executable, '-m', f'qgan_jax.{module}', *map(str, arguments)],
      cwd=cwd,
      env=env | variables,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    processes.append(process)
    return process

  try:
    yield start
  finally:
    for process in processes:
      process.terminate()  # A sweep ends its trials first.
    for process in processes:
      try:
        process.wait(timeout=20)
      except subprocess.TimeoutExpired:
        process.kill()


def finish(process, code=0):
  """What a process printed, once it has ended as it should."""
  out, err = process.communicate(timeout=900)
  assert process.returncode == code, err
  assert 'Traceback' not in err
  return out, err


def parent(pid):
  """The process that started another."""
  stat = Path(f'/proc/{pid}/stat').read_text()
  # Behind the name, which may hold anything: the state, then the parent.
  return int(stat.rpartition(')')[2].split()[1])
