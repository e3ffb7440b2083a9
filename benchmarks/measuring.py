"""What benchmarks share: turns, records with provenance, other load."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import datetime
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import re
import sys
import time
from typing import Any

import jax
from rich.console import Console

# Above this share of the cores for other processes, times are not comparable.
MAX_FOREIGN = 0.05
WARM_UP = 3  # Steps before the first turn.
# Timed steps in a turn, after one that is not: the contestant before may have
# left its threads spinning, and the caches are full of its arrays.
TURN = 3
Step = Callable[[], object]
say = Console(width=None if sys.stdout.isatty() else 120).print


def hardware() -> str:
  """The name of what runs the steps."""
  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.device_kind
  info = Path('/proc/cpuinfo')
  found = info.exists() and re.search(r'model name\s*: (.+)', info.read_text())
  name = found[1] if found else platform.processor() or platform.machine()
  return f'{name.strip()}, {len(os.sched_getaffinity(0))} cores'


def start_record(packages: Sequence[str], **settings: Any) -> dict[str, Any]:
  """Hardware, date and versions: prints them, and starts the record."""
  versions = {}
  for name in packages:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      say(f'{name} is not installed, and its contestants are left out')
  record = {
    'hardware': hardware(),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'python': platform.python_version(),
    'versions': versions,
    **settings,
  }
  say(', '.join(f'{key} {value}' for key, value in record.items()))
  return record


def save(record: dict[str, Any], folder: Path | None, name: str) -> None:
  """Writes FOLDER/NAME-HARDWARE.json; does nothing without a folder."""
  if folder is None:
    return
  slug = re.sub(r'[^a-z0-9]+', '-', record['hardware'].lower()).strip('-')
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'{name}-{slug}.json'
  path.write_text(json.dumps(record, indent=2) + '\n')


def _foreign_seconds() -> float | None:
  """CPU seconds that other processes have used since boot; None off Linux."""
  stat = Path('/proc/stat')
  if not stat.exists():
    return None
  user, nice, system = map(int, stat.read_text().split()[1:4])
  busy = (user + nice + system) / os.sysconf('SC_CLK_TCK')
  return busy - _own_seconds()


def _own_seconds() -> float:
  """CPU seconds of this process and of those that it has started."""
  own = sum(os.times()[:4])  # With the children that have ended.
  for children in Path('/proc/self/task').glob('*/children'):
    for pid in children.read_text().split():
      _, _, fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')
      user, system = map(int, fields.split()[11:13])
      own += (user + system) / os.sysconf('SC_CLK_TCK')
  return own


@contextlib.contextmanager
def foreign_share(case: dict[str, Any]) -> Iterator[None]:
  """Measures the share of the cores that other processes take meanwhile.

  Args:
    case: gets it as 'foreign_share'; None where it is unknown.
  """
  begin, before = time.perf_counter(), _foreign_seconds()
  yield
  after, wall = _foreign_seconds(), time.perf_counter() - begin
  case['foreign_share'] = None
  if before is not None and after is not None:
    case['foreign_share'] = (after - before) / (wall * (os.cpu_count() or 1))


def say_whether_comparable(case: dict[str, Any]) -> None:
  """Warns where other processes have spoiled a case."""
  share = case['foreign_share']
  if share is None:
    say('What other processes took is unknown here: see that none ran.')
  elif share > MAX_FOREIGN:
    say(
      f'NOT COMPARABLE: other processes took {share:.0%} of the cores; '
      'measure again on a machine that does nothing else'
    )


def warmed(steps: Mapping[str, Step]) -> dict[str, Step]:
  """The contestants that run, compiled; says why another does not."""
  ready = {}
  for name, step in steps.items():
    try:
      for _ in range(WARM_UP):
        step()
    except Exception as error:  # Whatever a compiler raises.
      if not name.startswith('torch.compile'):
        raise
      reason = str(error).strip().splitlines()[0]
      say(f'{name} is left out: {type(error).__name__}: {reason}')
    else:
      ready[name] = step
  return ready


def take_turns(
  steps: Mapping[str, Step], rounds: int
) -> dict[str, list[float]]:
  """Seconds of every timed step, by contestant."""
  times: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(rounds):
    for name, step in steps.items():
      step()
      for _ in range(TURN):
        start = time.perf_counter()
        step()
        times[name].append(time.perf_counter() - start)
  return times
