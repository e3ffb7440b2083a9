"""Finds run folders and reads them, complete or not."""

from collections import Counter
from collections.abc import Iterable, Iterator
import dataclasses
import math
import os
from pathlib import Path
import shlex
from typing import Any

from qgan_jax import records
from qgan_jax.errors import UserError

# What variants call the network that is drawn from, scored and packed.
DELIVERED = ('generator', 'decoder')
# A metric's steps and values, in order.
Curve = tuple[list[int], list[float]]


@dataclasses.dataclass(frozen=True)
class Run:
  """One trial, as far as it has come.

  Attributes:
    folder: where it lies.
    name: what people call it; no two runs of a report share one.
    state: done, running, queued, waiting, stopped, failed, damaged, or
      unfinished where no sweep says more.
    message: why it failed, if that is known, or which file is damaged.
    seconds: how long it ran, if a sweep says so.
    config: the resolved config by dotted path; empty if there is none.
    record: all of `config.json`: versions, devices, the data set really used.
    command: the command that runs this trial alone.
    scores: `scores.json`; empty as long as there is none.
    curves: what was logged while it trained, by metric.
    samples: its sample grids by step.
    weight_bits: of the delivered network, the mean over its weights; None if
      not known.
  """

  folder: Path
  name: str
  state: str
  message: str
  seconds: float | None
  config: dict[str, Any]
  record: dict[str, Any]
  command: str
  scores: dict[str, Any]
  curves: dict[str, Curve]
  samples: dict[int, Path]
  weight_bits: float | None = None

  @property
  def step(self) -> int:
    """The last step that was logged."""
    return max((steps[-1] for steps, _ in self.curves.values()), default=0)


def read_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Run]:
  """Reads all runs in some folders.

  Args:
    paths: run folders, sweeps, or folders that hold such.

  Returns:
    The runs, each once; trials that a sweep has not begun are among them.

  Raises:
    UserError: a folder is not there, or there is no run in any.
  """
  found: dict[Path, tuple[Path, dict[str, Any]]] = {}
  tops = [Path(path) for path in paths]
  for path in tops:
    if not path.is_dir():
      raise UserError(
        f'{path} is no folder; give run folders, or folders that hold runs, '
        'such as runs/'
      )
    for folder, known in _find(path):
      where = folder.resolve()
      before = found.get(where, (folder, {}))[1]
      damage = (before.get('damage', ''), known.get('damage', ''))
      known |= {'damage': '; '.join(filter(None, dict.fromkeys(damage)))}
      found[where] = folder, before | known
  if not found:
    raise UserError(
      f'no run in {", ".join(map(str, tops))}: a run folder holds a '
      'config.json; train one with python -m qgan_jax.main, or give another '
      'folder'
    )
  names = _names(found)
  return [
    _read(folder, names[where], known)
    for where, (folder, known) in found.items()
  ]


def fingerprint(paths: Iterable[str | os.PathLike[str]]) -> str:
  """Changes whenever something that a report shows has changed."""
  times = []
  for path in paths:
    for folder, known in _find(Path(path)):
      times.append(f'{folder} {known.get("state")} {known.get("message")}')
      for name in ('config.json', 'metrics.jsonl', 'scores.json', 'samples'):
        try:
          status = os.stat(folder / name)
        except OSError:
          continue
        times.append(f'{name} {status.st_mtime_ns} {status.st_size}')
  return str(hash('\n'.join(times)))


def _find(top: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
  """Run folders below `top`, with what sweeps know of them."""
  for here, folders, files in os.walk(top):
    folder = Path(here)
    folders.sort()
    names = {*files, *folders}
    if 'sweep.json' in names:
      sweep, damage = _load(folder / 'sweep.json', records.SWEEP)
      states, more = _load(folder / 'states.json', records.STATES)
      for trial in sweep.get('trials', []):
        known = states.get(trial['name'], {})
        workdir = trial.get('workdir', trial['name'])
        yield folder / workdir, {'trial': trial, **known}
      # The sweep's own files are shown as if they were a run.
      for problem in filter(None, (damage, more)):
        yield folder, {'damage': problem}
    if 'config.json' in names:
      folders.clear()
      yield folder, {}


def _load(path: Path, schema: records.Schema) -> tuple[Any, str]:
  """(what a file holds, or nothing; what is wrong with it, or '')."""
  try:
    return records.read(path, schema) or {}, ''
  except records.DamagedFile as error:
    return {}, str(error)


def _names(folders: Iterable[Path]) -> dict[Path, str]:
  """Each folder's own name, with as many parents as make it unique."""
  names: dict[Path, str] = {}
  left = set(folders)
  depth = 0
  while left:
    depth += 1
    ends = {folder: folder.parts[-depth:] for folder in left}
    counts = Counter(ends.values())
    for folder, end in ends.items():
      if counts[end] == 1:
        names[folder] = '/'.join(end)
        left.remove(folder)
  return names


def _read(folder: Path, name: str, known: dict[str, Any]) -> Run:
  record, in_record = _load(folder / 'config.json', records.RUN)
  scores, in_scores = _load(folder / 'scores.json', records.SCORES)
  curves, in_curves = _curves(folder / 'metrics.jsonl')
  tensors, in_tensors = _load(folder / 'precision.json', records.PRECISION)
  problems = [
    known.get('damage', ''), in_record, in_scores, in_curves, in_tensors
  ]  # fmt: skip
  damage = '; '.join(filter(None, problems))
  trial = known.get('trial', {})
  # The scores are the last thing that a run writes.
  begun = 'unfinished' if record or not trial else 'waiting'
  state = 'done' if scores else known.get('state', begun)
  state = 'damaged' if damage else state
  return Run(
    folder=folder,
    name=name,
    state=state,
    message=damage or ('' if scores else known.get('message', '')),
    seconds=known.get('seconds') or None,
    config=dict(_flat(record.get('config') or trial.get('config') or {})),
    record=record,
    command=trial.get('command') or _command(folder, record),
    scores=scores,
    curves=curves,
    samples=_samples(folder / 'samples'),
    weight_bits=_weight_bits(tensors),
  )


def _weight_bits(tensors: Iterable[dict[str, Any]]) -> float | None:
  """The mean bits of the delivered network's weights."""
  weights = [
    tensor
    for tensor in tensors
    if tensor['role'] == 'weights' and tensor['network'] in DELIVERED
  ]
  if any(tensor.get('quantizer') == 'grid' for tensor in weights):
    return None  # Its number is an exponent.
  sizes = [(math.prod(t['shape']), t['bits']) for t in weights]
  total = sum(size for size, _ in sizes)
  return sum(size * bits for size, bits in sizes) / total if total else None


def _flat(value: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  for key, inner in value.items():
    if isinstance(inner, dict) and inner:
      yield from _flat(inner, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', inner


def _command(folder: Path, record: dict[str, Any]) -> str:
  """The command of a run that no sweep started."""
  file = str(record.get('file', ''))
  if not file or file.startswith('qgan_jax.'):
    return ''  # Of no command: quantized after training, or made in Python.
  arg = f':{record["arg"]}' if record.get('arg') else ''
  overrides = [
    f'--config.{path}={value}'
    for path, value in (record.get('overrides') or {}).items()
  ]
  config = f'--config={file}{arg}'
  words = ['python', '-m', 'qgan_jax.main', config, *overrides]
  return shlex.join([*words, f'--workdir={folder}'])


def _curves(path: Path) -> tuple[dict[str, Curve], str]:
  """(metrics by name, what is wrong with the file)."""
  curves: dict[str, Curve] = {}
  rows, damage = records.read_metrics(path)
  for row in rows:
    step = row.pop('step')
    row.pop('dataset', None)
    for name, value in row.items():
      steps, values = curves.setdefault(name, ([], []))
      steps.append(step)
      values.append(value)
  return curves, damage


def _samples(folder: Path) -> dict[int, Path]:
  grids = {}
  for path in sorted(folder.glob('step_*.png')):
    step = path.stem.removeprefix('step_')
    if step.isdecimal():
      grids[int(step)] = path
  return grids
