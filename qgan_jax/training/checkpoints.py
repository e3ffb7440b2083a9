"""Checkpoints on disk; a damaged one is refused.

This is the one file that knows Orbax. Orbax makes each save atomic: it writes
to a temporary folder and renames that. Each checkpoint also holds a header with
the SHA-256 of all that it contains, which is checked before anything is used.
"""

from collections.abc import Mapping
import contextlib
import logging
import math
import os
from pathlib import Path
import re
import shutil
import sys
from typing import Any

import jax
import orbax.checkpoint as ocp

from qgan_jax.errors import UserError
from qgan_jax.training.packed_state import (
  Damaged,
  Header,
  Leaves,
  pack,
  unflatten,
  unpack,
)

PyTree = Any

# Orbax logs each stage of each save; errors are raised, not only logged.
logging.getLogger('absl').addFilter(lambda log: 'orbax' not in log.pathname)


def _after_failed_saves(report):
  def hook(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      report(unraisable)

  return hook


# After one array could not be written, TensorStore's threads go on with others
# and print a traceback for each, although the save has already failed.
sys.unraisablehook = _after_failed_saves(sys.unraisablehook)


class Checkpoints:
  """The checkpoints of one run.

  A state is any pytree of arrays: its structure comes from the tree that
  `restore…(like)` is given, its values from the disk, bit for bit, as NumPy
  arrays for the caller to place on devices. A typed PRNG key goes in as its
  `jax.random.key_data`.

  In a run of several processes, which all hold the same state, the primary one
  alone writes and no process waits for another; every one can restore from the
  shared folder.
  """

  def __init__(
    self,
    folder: Path,
    *,
    keep: int = 3,
    primary: bool = True,
    about: Mapping[str, Any] | None = None,
  ):
    """Opens the folder, which the primary process creates and tidies up.

    Args:
      folder: for this run's checkpoints and nothing else.
      keep: how many of the newest steps stay, at least 1, beside the best.
      primary: False for one that only reads: `save` and `save_best` do nothing,
        and damaged checkpoints stay where they are.
      about: what the run is, as JSON can hold it: kept with every checkpoint.

    Raises:
      UserError: if the folder cannot be created or written.
    """
    if keep < 1:
      raise ValueError(f'keep={keep}: at least 1')
    self._folder = Path(folder).absolute()
    self._best_folder = self._folder / 'best'
    self._keep = keep
    self._primary = primary
    self._about = about
    self._best_score: float | None = None
    # Tells Orbax that this process is the only one, so that it waits for none.
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    self._orbax = ocp.Checkpointer(
      ocp.CompositeCheckpointHandler(
        # Compression saves 8% of the bytes and takes a third of a save's time.
        state=ocp.PyTreeCheckpointHandler(
          use_compression=False, multiprocessing_options=alone
        ),
        header=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
      ),
      multiprocessing_options=alone,
    )
    if primary:
      try:
        self._best_folder.mkdir(parents=True, exist_ok=True)
        self._places = {
          folder: os.stat(folder)
          for folder in (self._folder, self._best_folder)
        }
        self._remove_leftovers()
      except OSError as error:
        raise UserError(
          f'checkpoints cannot be written in {self._folder}: '
          f'{_system_error(error)}; choose another folder or change its '
          'permissions'
        ) from error

  @property
  def steps(self) -> tuple[int, ...]:
    """The steps with a checkpoint, oldest first, whole or not."""
    return saved_steps(self._folder)

  def origins(self) -> list[tuple[Path, Any]]:
    """(path, what its run is) of each whole checkpoint that says so."""
    found = []
    for folder in (self._folder, self._best_folder):
      for step in saved_steps(folder):
        path = folder / str(step)
        with contextlib.suppress(Damaged):
          about = self._read(path)[0].get('about')
          found += [(path, about)] if about else []
    return found

  def forget_after(self, step: int) -> None:
    """Removes later steps, for a run that goes on from this one.

    Otherwise they would count as the newest, and new ones be removed instead.
    """
    if self._primary:
      for later in self.steps:
        if later > step:
          self._remove(self._folder / str(later))

  def save(self, step: int, state: PyTree) -> None:
    """Saves a step, and then removes the oldest beyond `keep`.

    A step that is there already is replaced.

    Raises:
      UserError: if it cannot be written; earlier checkpoints stay whole.
    """
    if not self._primary:
      return
    self._write(self._folder, step, state, score=None)
    others = [other for other in self.steps if other != step]
    while len(others) >= self._keep:
      self._remove(self._folder / str(others.pop(0)))

  def save_best(self, step: int, state: PyTree, score: float) -> bool:
    """Keeps the state if its score is lower than that of the one kept so far.

    Args:
      step: the state's step.
      state: any pytree of arrays.
      score: lower is better, as a Fréchet distance; NaN is never kept.

    Returns:
      Whether it was kept; False where this process does not write.

    Raises:
      UserError: as `save`.
    """
    if not self._primary:
      return False
    if self._best_score is None:
      best = self._read_best()
      self._best_score = best[0]['score'] if best else math.inf
    if not score < self._best_score:
      return False
    self._write(self._best_folder, step, state, score=float(score))
    self._best_score = float(score)
    for other in saved_steps(self._best_folder):
      if other != step:
        self._remove(self._best_folder / str(other))
    return True

  def restore_latest(self, like: PyTree) -> tuple[int, PyTree] | None:
    """The newest whole checkpoint.

    A damaged newer one is named in a warning and moved aside, to
    `<step>.damaged`, so that training can save its step again.

    Args:
      like: the structure, with arrays or `jax.ShapeDtypeStruct`s as leaves.

    Returns:
      The step and the state, or None where nothing has been saved.

    Raises:
      UserError: if every checkpoint is damaged, or the newest whole one is of
        another structure.
    """
    damaged = []
    for step in reversed(self.steps):
      path = self._folder / str(step)
      try:
        header, leaves = self._read(path)
      except Damaged:
        damaged.append(path)
        continue
      state = unflatten(like, header, leaves, path=path)
      for broken in damaged:
        logging.getLogger(__name__).warning(
          'checkpoint %s is damaged; going back to step %d', broken, step
        )
        if self._primary:
          aside = broken.with_name(f'{broken.name}.damaged')
          _delete(aside)
          broken.rename(aside)
      return step, state
    if damaged:
      raise UserError(
        f'every checkpoint in {self._folder} is damaged (steps '
        f'{", ".join(map(str, self.steps))}); restore the folder from a copy, '
        'or remove it to start again from step 0'
      )
    return None

  def restore_best(self, like: PyTree) -> tuple[int, PyTree] | None:
    """The best checkpoint; arguments, result and errors of `restore_latest`."""
    best = self._read_best()
    if best:
      header, leaves = best
      path = self._best_folder / str(header['step'])
      return header['step'], unflatten(like, header, leaves, path=path)
    if saved_steps(self._best_folder):
      raise UserError(
        f'the best checkpoint in {self._best_folder} is damaged; restore it '
        'from a copy, or use the latest one'
      )
    return None

  def restore_best_or_latest(self, like: PyTree) -> tuple[int, PyTree]:
    """What a run is judged by: the best checkpoint, else the newest.

    Arguments, result and errors as of `restore_latest`.

    Raises:
      UserError: also where nothing has been saved.
    """
    found = self.restore_best(like) or self.restore_latest(like)
    if found is None:
      raise UserError(
        f'there is no checkpoint in {self._folder}; train the run first'
      )
    return found

  def restore(self, step: int, like: PyTree) -> PyTree:
    """The state of a step.

    Raises:
      UserError: if there is no such checkpoint, it is damaged, or it is of
        another structure.
    """
    path = self._folder / str(step)
    there = ', '.join(map(str, self.steps)) or 'none'
    if step not in self.steps:
      raise UserError(
        f'there is no checkpoint of step {step} in {self._folder}; of these '
        f'steps there is one: {there}'
      )
    try:
      header, leaves = self._read(path)
    except Damaged as error:
      raise UserError(
        f'checkpoint {path} is damaged; take another of the steps {there}'
      ) from error
    return unflatten(like, header, leaves, path=path)

  def _write(
    self, folder: Path, step: int, state: PyTree, *, score: float | None
  ) -> None:
    header, arrays = pack(
      state, {'step': int(step), 'score': score, 'about': self._about}
    )
    path = folder / str(step)
    if not self._is_there(folder):
      raise _gone(path)
    failure: Exception | None = None
    try:
      self._orbax.save(
        path,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(arrays),
          header=ocp.args.JsonSave(header),
        ),
        force=True,
      )
    except Exception as error:
      failure = error
      self._remove_leftovers()
    if not self._is_there(folder):
      # Orbax makes folders that are missing: what it has made is removed.
      _delete(path)
      for made in (self._best_folder, self._folder, self._folder.parent):
        with contextlib.suppress(OSError):
          made.rmdir()  # Only where it is empty.
      raise _gone(path) from failure
    if failure is None:
      return
    reason = _system_error(failure)
    if reason is None:
      raise failure
    raise UserError(
      f'checkpoint {path} cannot be written: {reason}; earlier ones are '
      'whole, and the same command resumes from the newest of them'
    ) from failure

  def _is_there(self, folder: Path) -> bool:
    """Whether the folder is still the one that was opened."""
    try:
      return os.path.samestat(os.stat(folder), self._places[folder])
    except OSError:
      return False

  def _read(self, path: Path) -> tuple[Header, Leaves]:
    try:
      found = self._orbax.restore(
        path,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(), header=ocp.args.JsonRestore()
        ),
      )
    except Exception as error:  # A broken file can raise nearly anything.
      raise Damaged(path) from error
    header, leaves = unpack(found.header, found.state)
    if header.get('step') != int(path.name):
      raise Damaged(path)
    return header, leaves

  def _read_best(self) -> tuple[Header, Leaves] | None:
    # There are two if the process was killed between saving and removing.
    whole = []
    for step in saved_steps(self._best_folder):
      path = self._best_folder / str(step)
      try:
        whole.append(self._read(path))
      except Damaged:
        logging.getLogger(__name__).warning('checkpoint %s is damaged', path)
    return min(whole, key=lambda best: best[0]['score'], default=None)

  def _remove(self, path: Path) -> None:
    # Renamed first, so that a half-removed one is never taken for a checkpoint.
    gone = path.with_name(f'{path.name}.removed')
    _delete(gone)
    path.rename(gone)
    _delete(gone)

  def _remove_leftovers(self) -> None:
    for folder in (self._folder, self._best_folder):
      for pattern in ('*.orbax-checkpoint-tmp*', '*.removed'):
        for path in folder.glob(pattern):
          _delete(path)


def _gone(path: Path) -> UserError:
  return UserError(
    f'checkpoint {path} cannot be written: the folder is gone; start the run '
    'again, from a copy if there is one'
  )


def _delete(path: Path) -> None:
  """Removes a folder, or a file that has its name; as far as that goes."""
  shutil.rmtree(path, ignore_errors=True)
  with contextlib.suppress(OSError):
    path.unlink(missing_ok=True)


def saved_steps(folder: Path) -> tuple[int, ...]:
  """The steps with a checkpoint in a folder, oldest first, whole or not."""
  if not folder.is_dir():
    return ()
  names = {path.name for path in folder.iterdir()}
  steps = {int(name) for name in names if name.isdecimal()}
  # Other ways to write a number, such as 007, are not ours.
  return tuple(sorted(step for step in steps if str(step) in names))


def _system_error(error: Exception) -> str | None:
  # TensorStore gives the operating system's error number only in its text.
  if isinstance(error, OSError):
    code = error.errno
  else:
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found.group(1)) if found else None
  return os.strerror(code).lower() if code else None
