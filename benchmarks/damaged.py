"""Damages the newest checkpoint of a run, and looks at what is restored."""

import collections
import logging
from pathlib import Path
import random
import shutil
from typing import Any

from endured import arrays, Bench, Broken, ended
import jax
import numpy as np
import small_networks  # noqa: F401 - A run's folder does not import it.

from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.runs.folder import read_run
from qgan_jax.training.checkpoints import Checkpoints

_COMMANDS = 10  # Damaged runs that the command itself resumes.


def damage_checkpoints(bench: Bench, count: int, seed: int) -> dict[str, Any]:
  """Damages copies of a run's newest checkpoint, and restores each.

  A state is right if it is bit for bit that of the step it is said to be, as
  Orbax read it before. Where all that was damaged does not count, it is the
  newest; else the one before, or the command says what is wrong.

  Args:
    bench: where runs are made.
    count: damages.
    seed: of these.
  """
  reference, _ = bench.undisturbed
  source = bench.folder / 'first'
  saved = source / 'checkpoints'
  steps = sorted(int(p.name) for p in saved.iterdir() if p.name.isdecimal())
  truth = {step: arrays(saved / str(step)) for step in steps}
  config, _ = read_run(source)
  like = build.set_up(
    config, build.load_dataset(config, standin=False)
  ).state_shapes()
  logging.disable()  # It warns of each.
  found: collections.Counter[str] = collections.Counter()
  failures, resumed = [], 0
  for i in range(count):
    rng = random.Random(f'{seed} {i}')
    folder = bench.folder / f'damaged-{i}'
    shutil.copytree(source, folder)
    what = _damage(folder / 'checkpoints' / str(steps[-1]), rng)
    try:
      outcome = _restore(folder / 'checkpoints', like, truth)
      if outcome == 'the one before' and resumed < _COMMANDS:
        resumed += 1
        bench.start(folder).finish()
        ended(folder).check(reference)
    except Broken as error:
      outcome = 'wrong'
      failures.append(f'{what}: {error}')
    found[f'{what.partition(" of ")[0]}: {outcome}'] += 1
    shutil.rmtree(folder)
    if (i + 1) % 50 == 0:
      print(f'{i + 1} of {count} damages, {len(failures)} wrong', flush=True)
  return {
    'damages': count,
    'resumed_by_the_command': resumed,
    'outcomes': dict(sorted(found.items())),
    'failures': failures,
  }


def _restore(
  folder: Path, like: Any, truth: dict[int, dict[str, bytes]]
) -> str:
  """What is restored from a damaged folder, in words.

  Raises:
    Broken: another state than was saved, or an error that is no sentence.
  """
  try:
    step, state = Checkpoints(folder).restore_latest(like)
  except UserError:
    return 'a sentence'
  except Exception as error:
    raise Broken(f'{type(error).__name__}: {error}') from error
  by_type: dict[str, list[np.ndarray]] = {}
  for leaf in map(np.asarray, jax.tree.leaves(state)):
    by_type.setdefault(leaf.dtype.name, []).append(leaf.ravel())
  got = {name: np.concatenate(x).tobytes() for name, x in by_type.items()}
  if got != truth[step]:
    raise Broken(f'a wrong state, said to be of step {step}')
  return 'the newest' if step == max(truth) else 'the one before'


def _damage(checkpoint: Path, rng: random.Random) -> str:
  """Damages one file or folder of a checkpoint; says which and how."""
  paths = sorted(checkpoint.rglob('*'))
  file = rng.choice([path for path in paths if path.is_file()])
  folder = rng.choice([path for path in paths if path.is_dir()])
  content = bytearray(file.read_bytes())
  size = len(content)
  how = rng.choice(_WAYS if size else ('deleted', 'longer', 'folder deleted'))
  at = rng.randrange(size or 1)
  if how == 'deleted':
    file.unlink()
  elif how == 'folder deleted':
    shutil.rmtree(folder)
    return f'{how} of {folder.relative_to(checkpoint)}'
  else:
    if how == 'one bit':
      content[at] ^= 1 << rng.randrange(8)
    elif how == 'truncated':
      del content[at:]
    elif how == 'zeros':
      content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif how == 'noise':
      content[at : at + 64] = rng.randbytes(len(content[at : at + 64]))
    elif how == 'longer':
      content += rng.randbytes(64)
    elif how == 'of an earlier step':
      others = checkpoint.with_name(str(int(checkpoint.name) - 2))
      other = others / file.relative_to(checkpoint)
      if not other.exists():  # Files of data have names of their own.
        other = max(others.rglob('*'), key=lambda p: p.stat().st_size)
      content = bytearray(other.read_bytes())
    file.write_bytes(content)
  return f'{how} of {file.relative_to(checkpoint)}'


_WAYS = (
  'one bit', 'truncated', 'zeros', 'noise', 'longer', 'deleted',
  'folder deleted', 'of an earlier step',
)  # fmt: skip
