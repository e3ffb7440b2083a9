"""Runs that lack something: disk, memory, files, an honest clock.

Each ends as an undisturbed one, or in one sentence; its checkpoints stay whole,
and the same command, with enough of everything, ends as if nothing had been.
What needs root (`mount`) or a program that is not installed is left out, and
the record says so.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import os
from pathlib import Path
import shutil
import signal
import subprocess
import time
from typing import Any

from endured import arrays, Bench, Broken, Command, Ended, ended

_DISKS = ('16k', '100k', '400k', '800k', '1200k', '1800k', '2400k', '3m')
_ADDRESSES = (1, 2, 3, 4)  # GiB that a process may map.
_CONTAINER = (200, 400, 500)  # MiB of a control group.
_SLOW = 'fsync,fdatasync,rename,mkdir,unlink,rmdir,write,pwrite64'


class Missing(Exception):
  """This machine cannot do it."""


def starve(bench: Bench, *, jobs: int) -> dict[str, Any]:
  """Makes a run for each scarcity, so many at a time."""
  reference, _ = bench.undisturbed
  cases: dict[str, Callable[[Path], str]] = {}
  for size in _DISKS:
    cases[f'a disk of {size}'] = lambda workdir, size=size: _small_disk(
      bench, workdir, size
    )
  cases['full caches'] = lambda workdir: _elsewhere(
    bench, workdir, 'JAX_COMPILATION_CACHE_DIR', 'QGAN_JAX_CACHE'
  )
  cases['full TMPDIR'] = lambda workdir: _elsewhere(bench, workdir, 'TMPDIR')
  cases['64 open files'] = lambda workdir: _limited(
    bench, workdir, '--nofile=64:64'
  )
  for size in _ADDRESSES:
    cases[f'{size} GiB of addresses'] = lambda workdir, size=size: _limited(
      bench, workdir, f'--as={size << 30}'
    )
  for size in _CONTAINER:
    cases[f'a container of {size} MiB'] = lambda workdir, size=size: _contained(
      bench, workdir, size << 20
    )
  cases['the clock set back between'] = lambda workdir: _clock(bench, workdir)
  cases['the clock set back meanwhile'] = lambda workdir: _clock_meanwhile(
    bench, workdir
  )
  cases['a slow disk'] = lambda workdir: _slow_disk(bench, workdir)
  record: dict[str, Any] = {'cases': {}, 'failures': []}

  def run(name: str) -> None:
    workdir = bench.folder / f'starved-{list(cases).index(name)}'
    try:
      outcome = _try(bench, workdir, cases[name], reference)
    except Missing as error:
      outcome = f'not tried: {error}'
    except Broken as error:
      outcome = f'broken: {error}'
      record['failures'].append(f'{name}: {error}')
    record['cases'][name] = outcome
    print(f'{name}: {outcome}', flush=True)

  with futures.ThreadPoolExecutor(jobs) as pool:
    list(pool.map(run, cases))
  return record


def _try(
  bench: Bench, workdir: Path, case: Callable[[Path], str], reference: Ended
) -> str:
  """Makes a case, and then the same run with enough of everything."""
  outcome = case(workdir)
  checkpoints = workdir / 'checkpoints'
  whole = [path for path in checkpoints.glob('*') if path.name.isdecimal()]
  for path in whole:
    try:
      arrays(path)
    except Exception as error:
      raise Broken(f'{path} cannot be read: {error}') from error
  bench.start(workdir).finish()
  ended(workdir).check(reference)
  return f'{outcome} ({len(whole)} checkpoints)'


def _outcome(command: Command) -> str:
  """How a command has ended: well, or in a sentence."""
  code = command.wait()
  if code == 0:
    return 'ended well'
  return command.refusal()


@contextlib.contextmanager
def _disk(folder: Path, size: str) -> Iterator[None]:
  """A file system in memory of that size."""
  folder.mkdir()
  options = ['-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
  made = subprocess.run(['mount', *options], capture_output=True, text=True)
  if made.returncode:
    raise Missing(f'mount: {made.stderr.strip()}')
  try:
    yield
  finally:
    subprocess.run(['umount', str(folder)], check=True)


def _small_disk(bench: Bench, workdir: Path, size: str) -> str:
  disk = bench.folder / f'disk-{size}'
  with _disk(disk, size):
    outcome = _outcome(bench.start(disk / 'run'))
    if (disk / 'run').is_dir():
      shutil.copytree(disk / 'run', workdir)  # Where there is room.
  return outcome


def _elsewhere(bench: Bench, workdir: Path, *variables: str) -> str:
  """What variables name is on a disk without room."""
  disk = bench.folder / f'full-{variables[0]}'
  with _disk(disk, '8k'):
    with contextlib.suppress(OSError), open(disk / 'filler', 'wb') as file:
      file.write(bytes(1 << 20))
    full = dict.fromkeys(variables, str(disk))
    return _outcome(bench.start(workdir, env=full))


def _limited(bench: Bench, workdir: Path, limit: str) -> str:
  command = bench.start(workdir, before=['prlimit', limit])
  return _outcome(command)


def _contained(bench: Bench, workdir: Path, size: int) -> str:
  """A control group's memory: the system kills what takes more."""
  limits = {
    Path('/sys/fs/cgroup'): 'memory.max',
    Path('/sys/fs/cgroup/memory'): 'memory.limit_in_bytes',  # Version 1.
  }
  parents = [path for path in limits if (path / 'cgroup.procs').exists()]
  if not parents:
    raise Missing('there are no control groups')
  group = parents[0] / f'endurance-{os.getpid()}-{size}'
  try:
    group.mkdir()
  except OSError as error:
    raise Missing(f'control groups: {error.strerror}') from None
  try:
    try:
      (group / limits[parents[0]]).write_text(str(size))
    except OSError as error:
      raise Missing(f'control groups: {error.strerror}') from None
    enter = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    command = bench.start(workdir, before=['sh', '-c', enter, 'sh'])
    code = command.wait()
    return 'killed by the system' if code == -9 else _outcome(command)
  finally:
    group.rmdir()


def _faketime() -> str:
  found = shutil.which('faketime')
  if found is None:
    raise Missing('faketime is not installed')
  return found


def _clock(bench: Bench, workdir: Path) -> str:
  """Killed in the middle, and resumed 400 days before."""
  env = {'FAKETIME_DONT_FAKE_MONOTONIC': '1'}
  faketime = _faketime()
  command = bench.start(workdir)
  _wait_for_step(command, workdir, 10)
  command.kill(signal.SIGKILL)
  command.wait()
  command = bench.start(workdir, before=[faketime, '-f', '-400d'], env=env)
  return _outcome(command)


def _clock_meanwhile(bench: Bench, workdir: Path) -> str:
  """400 days back while it trains."""
  _faketime()
  library = next(Path('/usr/lib').glob('*/faketime/libfaketimeMT.so.1'), None)
  if library is None:
    raise Missing('libfaketime is not installed')
  offset = bench.folder / 'offset'
  offset.write_text('+0')
  env = {
    'LD_PRELOAD': str(library),
    'FAKETIME_TIMESTAMP_FILE': str(offset),
    'FAKETIME_NO_CACHE': '1',
    'FAKETIME_DONT_FAKE_MONOTONIC': '1',
  }
  command = bench.start(workdir, env=env)
  _wait_for_step(command, workdir, 10)
  offset.write_text('-400d')
  return _outcome(command)


def _wait_for_step(command: Command, workdir: Path, step: int) -> None:
  while command.running():
    names = (path.name for path in (workdir / 'checkpoints').glob('*'))
    if any(name.isdecimal() and int(name) >= step for name in names):
      return
    time.sleep(0.01)
  raise Broken(f'it ended before step {step}: {command.said()[-500:]}')


def _slow_disk(bench: Bench, workdir: Path) -> str:
  """Each write takes 20 ms longer; it is stopped once, and once killed."""
  if shutil.which('strace') is None:
    raise Missing('strace is not installed')
  slow = ['strace', '-f', '-qq', '--seccomp-bpf', '-o', '/dev/null', '-e']
  slow += [f'trace={_SLOW}', '-e', f'inject={_SLOW}:delay_enter=20000']
  for step, number in ((6, signal.SIGTERM), (14, signal.SIGKILL)):
    command = bench.start(workdir, before=slow)
    _wait_for_step(command, workdir, step)
    command.kill(number)
    command.wait()
  return _outcome(bench.start(workdir, before=slow))
