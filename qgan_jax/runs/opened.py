"""A trial with its folder open and locked, ready to be trained."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qgan_jax import records
from qgan_jax.config.flags import Experiment
from qgan_jax.config.names import default_workdir
from qgan_jax.data import ImageDataset
from qgan_jax.precision.table import format_table
from qgan_jax.runs import build, memory, score
from qgan_jax.runs.folder import identity, open_folder
from qgan_jax.runs.precision import describe_schedule
from qgan_jax.runs.start import load_start
from qgan_jax.training.checkpoints import Checkpoints, saved_steps
from qgan_jax.training.sampling import Sampler
from qgan_jax.training.state import TrainState
from qgan_jax.variants import Variant

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run to be trained.

  Attributes:
    experiment: its config, and where the config comes from.
    workdir: its folder; None for the default one.
    variant: networks, losses, and the order of updates; None for the config's.
    dataset: the images; None for those of the config.
  """

  experiment: Experiment
  workdir: Path | None = None
  variant: Variant | None = None
  dataset: ImageDataset | None = None


@dataclasses.dataclass
class Opened:
  """A trial, with all parts that are its own if several share a program.

  Attributes:
    trial: what is run.
    workdir: its folder.
    setup: of the trial, on one device.
    start: variables by network that it starts from, or None.
    checkpoints: of the folder.
    shapes: of its state.
    sampler: draws from its states.
  """

  trial: Trial
  workdir: Path
  setup: build.Setup
  start: PyTree
  checkpoints: Checkpoints
  shapes: TrainState
  sampler: Sampler

  @property
  def config(self) -> Any:
    """The config of the trial, resolved."""
    return self.trial.experiment.config


def open_trial(
  trial: Trial,
  dataset: ImageDataset,
  shapes: dict[Any, TrainState],
  held: contextlib.ExitStack,
  *,
  primary: bool,
) -> Opened:
  """Opens the folder of a trial.

  Args:
    trial: what is run.
    dataset: its images.
    shapes: a cache of the shapes of states, by precision.
    held: receives the lock of the folder.
    primary: whether this process writes.
  """
  config = trial.experiment.config
  workdir = trial.workdir
  if workdir is None:
    suffix = '-on-digits' if dataset.is_standin else ''
    workdir = Path(default_workdir(config) + suffix)
  # Before the folder is made, so that what cannot run does not leave one.
  setup = build.set_up(config, dataset, variant=trial.variant)
  if setup.static not in shapes:
    shapes[setup.static] = setup.state_shapes()
  memory.check(setup, shapes[setup.static])
  score.check_samples(config.scores.samples, dataset)
  folder = workdir / 'checkpoints'
  start = None
  # Process 0 loads it for all; a run that resumes does not need it.
  if config.init_from and primary and not saved_steps(folder):
    start = load_start(config.init_from, setup, trial.variant)
  saved = []
  if primary:
    held.enter_context(records.alone(workdir))
    saved = Checkpoints(folder, primary=False).origins()
  open_folder(workdir, trial.experiment, dataset, saved=saved, primary=primary)
  if primary:
    table = [choice._asdict() for choice in setup.table]
    records.write_json(workdir / 'precision.json', table)
  return Opened(
    trial=trial,
    workdir=workdir,
    setup=setup,
    start=start,
    checkpoints=Checkpoints(
      folder, primary=primary, about=identity(config, dataset.name)
    ),
    shapes=shapes[setup.static],
    sampler=setup.sampler(),
  )


def describe(run: Opened, dataset: ImageDataset, state: TrainState) -> str:
  """A description of what is about to be trained, in words."""

  def line(name: str, params: PyTree) -> str:
    count = sum(np.size(x) for x in jax.tree.leaves(params))
    return f'{name}: {count:,} parameters'

  shape = '×'.join(map(str, dataset.train_images.shape[1:]))
  setup = run.setup
  when = describe_schedule(run.config, setup.bits)
  return '\n'.join(
    (
      f'{dataset.name}: {len(dataset.train_images):,} training images {shape}',
      *(line(name, part.params) for name, part in state.networks.items()),
      format_table(setup.table),
      *([when] if setup.is_quantized else []),
      f'{jax.device_count()} × {jax.devices()[0].device_kind}, {run.workdir}',
    )
  )
