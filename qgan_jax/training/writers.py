"""Where a run's metrics go: `metrics.jsonl`, TensorBoard, Weights & Biases.

`metrics.jsonl` is strict JSON, which has no NaN and no infinities. They are
strings that Python's `float` reads: "NaN", "Infinity", "-Infinity" (the names
that Protocol Buffers' JSON uses).
"""

from collections.abc import Iterator, Mapping
import contextlib
import importlib.util
import json
import math
import os
from pathlib import Path
import time
from typing import Any, Protocol
import uuid

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from qgan_jax import records
from qgan_jax.errors import UserError

# What is compared across runs, where a run has it.
_COMPARED = (
  'frechet_distance', 'fid', 'kernel_distance_mean', 'kid_mean', 'precision',
  'recall', 'density', 'coverage', 'elbo', 'reconstruction_error', 'psnr',
  'ssim',
)  # fmt: skip


class Writer(Protocol):
  """Takes what a run tells; each method returns when all is written.

  Any of them raises a UserError where it cannot write.
  """

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Metrics of a step, by name; NaN and infinities are fine."""

  def image(self, step: int, name: str, grid_uint8: np.ndarray) -> None:
    """A picture: uint8 [height, width, 1 or 3 channels]."""

  def scores(self, step: int, values: Mapping[str, float]) -> None:
    """What the run has come to: scores of the state of a step."""

  def close(self) -> None:
    """Ends it; nothing is written any more."""


class JsonLines:
  """`metrics.jsonl`: a line for each step that is logged.

  Attributes:
    damaged: how many lines of an earlier process were no metrics, and are gone.
  """

  def __init__(self, workdir: Path, first_step: int, dataset: str) -> None:
    """Opens the file; what it holds of later steps is removed.

    Args:
      workdir: the run's folder.
      first_step: steps already done, 0 for a new run.
      dataset: name of the data set really used; it is in every line.
    """
    self._path = workdir / 'metrics.jsonl'
    self._dataset = dataset
    with _writing(self._path):
      workdir.mkdir(parents=True, exist_ok=True)
      self.damaged = _keep_until(self._path, first_step)
      self._file = open(self._path, 'ab', buffering=0)  # noqa: SIM115

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes a line."""
    record: dict[str, object] = {'step': int(step), 'dataset': self._dataset}
    record |= {name: _strict(value) for name, value in values.items()}
    with _writing(self._path):
      rest = (json.dumps(record, allow_nan=False) + '\n').encode()
      while rest:  # A disk that fills up may take a part before it raises.
        rest = rest[self._file.write(rest) :]
    self._check_there()

  def image(self, step: int, name: str, grid_uint8: np.ndarray) -> None:
    """Pictures are no metrics."""

  def scores(self, step: int, values: Mapping[str, float]) -> None:
    """They have a file of their own, `scores.json`."""

  def close(self) -> None:
    """Closes the file."""
    with _writing(self._path):
      self._file.close()

  def _check_there(self) -> None:
    """Raises an error where the file was removed: writing to it would not."""
    try:
      same = os.path.samestat(
        os.stat(self._path), os.fstat(self._file.fileno())
      )
    except OSError:
      same = False
    if not same:
      raise UserError(
        f'{self._path} has been removed while the run was writing it; restore '
        "the run's folder from a copy, or start again in a new one"
      )


class TensorBoard:
  """Event files in `tensorboard/`, with hyperparameters and scores.

  The page HPARAMS of `tensorboard --logdir=SWEEP` compares runs by them.
  """

  def __init__(
    self, workdir: Path, first_step: int, hyperparameters: Mapping[str, Any]
  ) -> None:
    """Opens a file; steps of earlier ones from `first_step` on are hidden.

    Args:
      workdir: the run's folder.
      first_step: steps already done, 0 for a new run.
      hyperparameters: by name; None of them are left out.
    """
    self._path = workdir / 'tensorboard'
    experiment, start, self._end = summary.hparams(
      dict(hyperparameters), dict.fromkeys(_COMPARED)
    )
    with _writing(self._path):
      self._path.mkdir(exist_ok=True)
      # SummaryWriter's own thread would block training on a full disk.
      self._events = EventsWriter(
        str(self._path / 'events'), f'.{time.time_ns()}'
      )
      self._event(
        step=first_step + 1 if first_step else 0,
        session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
      )
      self._event(summary=experiment)
      self._event(summary=start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes one event for all of them."""
    scalars = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in values.items()
    ]
    with _writing(self._path):
      self._event(step=step, summary=summary_pb2.Summary(value=scalars))

  def image(self, step: int, name: str, grid_uint8: np.ndarray) -> None:
    """Writes it as PNG."""
    with _writing(self._path):
      picture = summary.image(name, grid_uint8, dataformats='HWC')
      self._event(step=step, summary=picture)

  def scores(self, step: int, values: Mapping[str, float]) -> None:
    """Writes what is compared, and that the run has ended."""
    self.scalars(
      step, {name: values[name] for name in _COMPARED if name in values}
    )
    with _writing(self._path):
      self._event(summary=self._end)

  def close(self) -> None:
    """Closes the file."""
    with _writing(self._path):
      self._events.close()

  def _event(self, **fields: object) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._events.write_event(event)
    self._events.flush()


class WeightsAndBiases:
  """A run at Weights & Biases, or offline (WANDB_MODE=offline) in `wandb/`.

  A run that goes on is one run there: `wandb/run_id` keeps its name.
  """

  def __init__(
    self,
    workdir: Path,
    first_step: int,
    hyperparameters: Mapping[str, Any],
    experiment: str,
  ) -> None:
    """Starts the run, or goes on with it.

    Args:
      workdir: the run's folder; its name is the run's.
      first_step: steps already done, 0 for a new run.
      hyperparameters: by name.
      experiment: its project, unless WANDB_PROJECT names another.
    """
    import wandb

    path = workdir / 'wandb' / 'run_id'
    with _writing(path):
      path.parent.mkdir(exist_ok=True)
      if not first_step or not path.exists():
        path.write_text(uuid.uuid4().hex)
      name = path.read_text()
    try:
      self._run = wandb.init(
        id=name,
        resume='allow',
        dir=workdir,
        name=workdir.name,
        group=workdir.parent.name,
        project=os.environ.get('WANDB_PROJECT', experiment),
        config=dict(hyperparameters),
        settings=wandb.Settings(
          console='off', silent=True, x_disable_stats=True
        ),
        # A population has a run for each member.
        reinit='create_new',
      )
    except wandb.Error as error:
      raise UserError(
        f'tracker=wandb: {str(error).splitlines()[0]}; log in with `wandb '
        'login`, or set WANDB_MODE=offline'
      ) from None

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Logs them."""
    self._run.log(dict(values), step=step)

  def image(self, step: int, name: str, grid_uint8: np.ndarray) -> None:
    """Logs it."""
    import wandb

    self._run.log({name: wandb.Image(grid_uint8.squeeze())}, step=step)

  def scores(self, step: int, values: Mapping[str, float]) -> None:
    """They become the run's summary, which its tables show."""
    self._run.summary.update({f'best/{k}': v for k, v in values.items()})
    self._run.summary['best/step'] = step

  def close(self) -> None:
    """Waits until all has been sent."""
    self._run.finish()


def check_tracker(name: str) -> None:
  """Looks for the package that `logging.tracker` needs.

  Raises:
    UserError: it is not installed.
  """
  if name == 'wandb' and importlib.util.find_spec('wandb') is None:
    raise UserError(
      "tracker=wandb needs a package: pip install 'qgan_jax[wandb]'"
    )


def _keep_until(path: Path, first_step: int) -> int:
  """Removes lines of later steps and a half line; a new run keeps nothing.

  Returns:
    How many other lines were no metrics, and are removed, too.
  """
  if not path.exists():
    return 0
  kept, damaged = b'', 0
  # What follows the last line's end is half a line, of a killed process.
  lines = path.read_bytes().split(b'\n')[:-1] if first_step else []
  for line in lines:
    try:
      if records.metrics_row(line)['step'] <= first_step:
        kept += line + b'\n'
    except ValueError:
      damaged += 1
  partial = path.with_name(f'{path.name}.partial')
  partial.write_bytes(kept)
  os.replace(partial, path)
  return damaged


def _strict(value: float) -> float | str:
  if math.isnan(value):
    return 'NaN'
  if math.isinf(value):
    return 'Infinity' if value > 0 else '-Infinity'
  return value


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{path} cannot be written: {error.strerror or error}; make room or '
      'change its permissions, and the same command resumes from the last '
      'checkpoint'
    ) from error
