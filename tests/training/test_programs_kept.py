import os
import subprocess
import sys

import jax

from qgan_jax.training import programs

SCRIPT = """
import jax, jax.numpy as jnp
from qgan_jax.training import programs
programs._LEAST_SECONDS = 0
programs.keep_programs()
print(jax.config.jax_compilation_cache_dir)
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(8.0))))
"""


def run(tmp_path, **variables):
  env = os.environ | {'XDG_CACHE_HOME': str(tmp_path), **variables}
  env = {k: v for k, v in env.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    env=env | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines(), done.stderr


def test_a_second_run_finds_the_first_ones_programs(tmp_path):
  (folder, value), _ = run(tmp_path)
  assert folder.startswith(str(tmp_path / 'qgan_jax' / 'programs'))
  files = sorted(os.listdir(folder))
  assert files
  before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns
            for name in files if name.endswith('-cache')}  # fmt: skip
  assert run(tmp_path)[0] == [folder, value]
  assert sorted(os.listdir(folder)) == files
  for name, changed in before.items():
    assert os.stat(os.path.join(folder, name)).st_mtime_ns == changed


def test_a_damaged_program_is_compiled_again(tmp_path):
  (folder, value), _ = run(tmp_path)
  for name in os.listdir(folder):
    path = os.path.join(folder, name)
    size = os.path.getsize(path)
    with open(path, 'r+b') as file:
      file.truncate(size // 2)
  (again, same), err = run(tmp_path)
  assert (again, same) == (folder, value)
  assert 'Traceback' not in err


def test_other_threads_have_other_programs(monkeypatch):
  monkeypatch.setenv('NPROC', '1')
  one = programs.machine()
  assert programs.machine() == one
  monkeypatch.setenv('NPROC', '2')
  assert programs.machine() != one


def test_other_processors_have_other_programs(tmp_path, monkeypatch):
  info = tmp_path / 'cpuinfo'
  monkeypatch.setattr(programs, '_CPU_INFO', info)
  found = set()
  for flags, speed in (('sse avx', 1), ('sse avx', 2), ('sse', 1)):
    info.write_text(f'flags : {flags}\ncpu MHz : {speed}\n\nflags : other\n')
    found.add(programs.machine())
  assert len(found) == 2
  info.unlink()
  assert programs.machine() not in found


def test_a_folder_of_ones_own_stays(monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', '/x/y')
  try:
    programs.keep_programs()
    assert jax.config.jax_compilation_cache_dir == '/x/y'
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


def test_without_a_home_nothing_is_kept(monkeypatch):
  def none():
    raise RuntimeError

  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(programs.Path, 'home', none)
  before = jax.config.jax_compilation_cache_dir
  programs.keep_programs()
  assert jax.config.jax_compilation_cache_dir == before


# XLA computes a constant while it compiles, and after a second says so.
COMPILES = """
import qgan_jax
import jax

def f(x):
  rows = jax.lax.broadcasted_iota('float32', (128, 128), 0)
  windows = (20, 20), (1, 1), 'SAME'
  return x + jax.lax.reduce_window(rows, 0.0, jax.lax.add, *windows)

jax.jit(f).lower(1.0).compile()
"""


def test_alarms_of_the_compiler_are_for_those_who_ask():
  environ = {k: v for k, v in os.environ.items() if 'LOG_LEVEL' not in k}
  quiet, asked = (
    subprocess.run(
      [sys.executable, '-c', COMPILES],
      env=environ | level,
      capture_output=True,
      text=True,
      check=True,
    ).stderr
    for level in ({}, {'TF_CPP_MIN_LOG_LEVEL': '0'})
  )
  assert quiet == ''
  assert 'Constant folding an instruction is taking > 1s' in asked
