"""Trains, scores and delivers trials that share one compiled program.

A run of `qgan_jax.main` is one trial; `qgan_jax.population` trains several.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import logging
from pathlib import Path
import sys
from typing import Any

import jax
from ml_collections import FrozenConfigDict
import numpy as np

from qgan_jax import artifacts, metrics, records
from qgan_jax.config import leaves, NETWORKS, ROLES
from qgan_jax.config.flags import Experiment
from qgan_jax.config.names import default_workdir
from qgan_jax.data import Batches, ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.precision.table import format_table
from qgan_jax.runs import build, memory
from qgan_jax.runs.deliver import deliver
from qgan_jax.runs.folder import identity, make_folder, open_folder
from qgan_jax.runs.precision import describe_schedule
from qgan_jax.runs.start import load_start
from qgan_jax.training import devices, diagnosis, loop
from qgan_jax.training.checkpoints import Checkpoints, saved_steps
from qgan_jax.training.sampling import CHOICE_SEED, Sampler
from qgan_jax.training.state import fill, TrainState
from qgan_jax.training.tracking import Tracker
from qgan_jax.variants import Variant

PyTree = Any
_GRID = 64  # Images in a sample grid.
# Keys that a program takes as arrays; trials that differ in no other share it.
_TRACED = (
  'seed',
  'init_from',
  'loss.penalty_weight',
  'ema.decay',
  *(f'{network}.bits.{role}' for network in NETWORKS for role in ROLES),
  *(f'{network}.learning_rate' for network in NETWORKS),
)
_TRACED_GROUPS = tuple(f'{network}.optimizer_kwargs.' for network in NETWORKS)


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run to be made.

  Attributes:
    experiment: its config, and where that comes from.
    workdir: its folder; None for the default one.
    variant: what is trained against what; what the config says if None.
    dataset: the images; what the config says if None.
  """

  experiment: Experiment
  workdir: Path | None = None
  variant: Variant | None = None
  dataset: ImageDataset | None = None


@contextlib.contextmanager
def exit_when_stopped() -> Iterator[None]:
  """Ends the command where a signal ends training; says how to go on."""
  try:
    yield
  except loop.Stopped as stop:
    print(
      f'{stop} after step {stop.step}, which is saved; the same command goes '
      'on from there',
      file=sys.stderr,
    )
    sys.exit(128 + stop.signal)
  except KeyboardInterrupt:
    print('stopped; the same command goes on', file=sys.stderr)
    sys.exit(130)


def program_key(config: Any) -> tuple[tuple[str, Any], ...]:
  """What trials have to have in common to share one program."""
  return tuple(
    (path, None if path.startswith(_TRACED_GROUPS) else value)
    for path, value in leaves(config).items()
    if path not in _TRACED
  )


@dataclasses.dataclass
class _Run:
  """A trial, with what it does not share with others of its program."""

  trial: Trial
  workdir: Path
  setup: build.Setup
  start: PyTree
  checkpoints: Checkpoints
  shapes: TrainState
  sampler: Sampler

  @property
  def config(self) -> Any:
    return self.trial.experiment.config


def train_and_deliver(trials: Sequence[Trial]) -> None:
  """Trains trials together, scores them and writes their artifacts.

  Args:
    trials: all of the same `program_key`.

  Raises:
    UserError: a trial cannot be run, another process is at work in its folder,
      or a value in it was not finite; in that case, the others are delivered
      first.
    loop.Stopped: SIGTERM or Ctrl-C.
  """
  with contextlib.ExitStack() as held:
    _train_and_deliver(trials, held)


def _train_and_deliver(
  trials: Sequence[Trial], held: contextlib.ExitStack
) -> None:
  """Does it; the locks of the folders are left to `held`."""
  configs = [trial.experiment.config for trial in trials]
  config = configs[0]
  primary = jax.process_index() == 0
  alone = jax.process_count() == 1

  # Data, and the folders that are named for it.
  dataset = trials[0].dataset or build.load_dataset(
    config, standin=alone and len(trials) == 1
  )
  layout = devices.make_layout(len(trials))
  if config.batch_size % layout.group:
    count = layout.group
    raise UserError(
      f'batch_size={config.batch_size} does not divide over {count} devices; '
      f'give a multiple, such as {-(-config.batch_size // count) * count}'
    )
  shapes: dict[Any, TrainState] = {}
  runs = [
    _open(trial, dataset, shapes, held, primary=primary) for trial in trials
  ]

  # Networks and states, from checkpoints where there are any.
  shared = shared_config(configs)
  setup = build.set_up(shared, dataset, layout, trials[0].variant)
  states = setup.init_states(
    [run.setup for run in runs], [run.start for run in runs]
  )
  states = _resume(runs, states, primary=primary)
  first_step = int(states[0].step)
  if first_step and first_step < config.steps:
    print(f'resuming from step {first_step}', file=sys.stderr)
  elif primary and not first_step:
    for run, state in zip(runs, states, strict=True):
      print(_describe(run, dataset, state), file=sys.stderr)
  states = devices.from_primary(states)

  # Scores and logs during training.
  extractor = build.make_extractor(config, dataset) if primary else None
  reference = None
  if extractor is not None:
    # Training images choose the best checkpoint; held-out ones only score it.
    count = min(10_000, len(dataset.train_images))
    reference = extractor.extract(dataset.train_images[:count])
  with contextlib.ExitStack() as stack:
    members = []
    made: dict[Any, diagnosis.Diagnose] = {}
    for i, run in enumerate(runs):
      tracker = Tracker(
        run.workdir,
        total_steps=config.steps,
        first_step=first_step,
        dataset=dataset.name,
        primary=primary,
        shown=i == 0,
      )
      stack.enter_context(tracker)
      members.append(
        loop.Member(
          batches=Batches(
            dataset.train_images,
            run.setup.labels,
            seed=run.config.seed,
            batch_size=config.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            process_devices=layout.local_group,
          ),
          checkpoints=run.checkpoints,
          tracker=tracker,
          periodic=_periodic(run, dataset, extractor, reference, tracker, made),
          own=functools.partial(fill, run.shapes),
        )
      )
    ended = loop.train(
      states,
      setup.program(),
      members,
      total_steps=config.steps,
      repeats=setup.variant.repeats,
      log_every=config.logging.log_every,
      checkpoint_every=config.logging.checkpoint_every,
      refit=setup.refit(),
    )
  if extractor is not None:
    for i, (run, last) in enumerate(zip(runs, ended.states, strict=True)):
      if last is not None:
        try:
          best = run.checkpoints.restore_best(run.shapes)
          summary = deliver(
            run.workdir,
            run.setup,
            best=best[1] if best else last,
            last=last,
            sampler=run.sampler,
            extractor=extractor,
          )
        except UserError as error:  # The others are delivered all the same.
          ended.problems[i] = str(error)
        else:
          print(summary, flush=True)
  if ended.problems:
    raise UserError(
      '; '.join(
        why if len(runs) == 1 else f'{runs[i].workdir}: {why}'
        for i, why in ended.problems.items()
      )
    )


def _open(
  trial: Trial,
  dataset: ImageDataset,
  shapes: dict[Any, TrainState],
  held: contextlib.ExitStack,
  *,
  primary: bool,
) -> _Run:
  """Opens the folder of a trial.

  Args:
    trial: what is run.
    dataset: its images.
    shapes: caches shapes of states by precision.
    held: takes the lock of the folder.
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
  metrics.check_counts(len(dataset.test_images), config.scores.samples)
  folder = workdir / 'checkpoints'
  start = None
  # Process 0 loads it for all; a run that resumes does not need it.
  if config.init_from and primary and not saved_steps(folder):
    start = load_start(config.init_from, setup)
  saved = []
  if primary:
    held.enter_context(records.alone(workdir))
    saved = Checkpoints(folder, primary=False).origins()
  open_folder(
    workdir, trial.experiment, dataset.name, saved=saved, primary=primary
  )
  if primary:
    table = [choice._asdict() for choice in setup.table]
    records.write_json(workdir / 'precision.json', table)
  return _Run(
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


def shared_config(configs: Sequence[Any]) -> Any:
  """The config of a program for all: for each role, the fewest bits of any."""
  shared = configs[0].to_dict()
  for network in NETWORKS:
    for role in ROLES:
      shared[network]['bits'][role] = min(
        config[network].bits[role] for config in configs
      )
  return FrozenConfigDict(shared)


def _resume(
  runs: Sequence[_Run], states: list[TrainState], *, primary: bool
) -> list[TrainState]:
  """The states at the newest step that all runs have saved."""
  if not primary:
    return states
  if len(runs) == 1:
    restored = runs[0].checkpoints.restore_latest(runs[0].shapes)
    return [fill(states[0], restored[1])] if restored else states
  saved = [set(run.checkpoints.steps) for run in runs]
  if not any(saved):
    return states
  problem = UserError('the trials have saved no step that all of them have')
  for step in sorted(set.intersection(*saved), reverse=True):
    try:
      found = [
        fill(state, run.checkpoints.restore(step, run.shapes))
        for run, state in zip(runs, states, strict=True)
      ]
    except UserError as error:
      logging.getLogger(__name__).warning('%s; trying an earlier step', error)
      problem = error
      continue
    for run in runs:
      run.checkpoints.forget_after(step)
    return found
  raise problem


def _periodic(
  run: _Run,
  dataset: ImageDataset,
  extractor: metrics.Extractor | None,
  reference: metrics.Features | None,
  tracker: Tracker,
  made: dict[Any, diagnosis.Diagnose],
) -> tuple[loop.Periodic, ...]:
  """Sample grids and quick scores; only the primary process makes them."""
  if extractor is None or reference is None:
    return ()
  config = run.config
  samples = run.workdir / 'samples'

  def save_samples(step: int, state: TrainState) -> dict[str, float]:
    make_folder(samples)
    path = samples / f'step_{step:07d}.png'
    images = run.sampler(state, _GRID)
    artifacts.save_grid(
      path, images, description=f'{dataset.name}, step {step}'
    )
    tracker.images(step, 'samples', artifacts.grid(images))
    return loop.singular_values(state)

  def evaluate(step: int, state: TrainState) -> dict[str, float]:
    count = config.logging.eval_samples
    fake = extractor.extract(run.sampler(state, count, seed=CHOICE_SEED))
    distance = metrics.frechet_distance(reference.features, fake.features)
    run.checkpoints.save_best(step, state, distance)
    values = {
      'eval/frechet_distance_train': distance,
      'eval/effective_rank': metrics.effective_rank(fake.features),
    }
    if fake.probabilities is not None and reference.probabilities is not None:
      histogram = metrics.mode_histogram(fake.probabilities)
      real = metrics.mode_histogram(reference.probabilities)
      values['eval/mode_kl'] = metrics.kl_to_reference(histogram, real)
      values['eval/modes_covered'] = metrics.modes_covered(histogram, real)
    return values

  return (
    loop.Periodic(config.logging.sample_every, save_samples),
    loop.Periodic(config.logging.eval_every, evaluate),
    *_diagnosis(run, dataset, tracker, made),
  )


_EXAMPLES = 64  # Images that quantization is measured on.


def _diagnosis(
  run: _Run,
  dataset: ImageDataset,
  tracker: Tracker,
  made: dict[Any, diagnosis.Diagnose],
) -> tuple[loop.Periodic, ...]:
  """Logs what quantization does; nothing for networks in float.

  `made` caches the compiled functions by precision, for all trials.
  """
  config = run.config
  if not config.logging.diagnose or not run.setup.is_quantized:
    return ()
  size = min(_EXAMPLES, len(dataset.train_images))
  batch = {'images': dataset.train_images[None, :size]}
  if run.setup.labels is not None:
    batch['labels'] = run.setup.labels[None, :size]
  key = run.setup.static
  refit = run.setup.refit()

  def diagnose(step: int, state: TrainState) -> dict[str, float]:
    if key not in made:
      made[key] = run.setup.diagnosis()
    report = made[key](refit.for_target(state), batch)
    if step == config.steps:
      tracker.message(diagnosis.format_report(report))
    return {
      f'quantization/{place}/{name}': value
      for place, numbers in report.items()
      for name, value in numbers.items()
    }

  return (
    loop.Periodic(config.logging.diagnose_every or config.steps, diagnose),
  )


def _describe(run: _Run, dataset: ImageDataset, state: TrainState) -> str:
  def line(name: str, params: PyTree) -> str:
    count = sum(np.size(x) for x in jax.tree.leaves(params))
    return f'{name}: {count:,} parameters'

  shape = '×'.join(map(str, dataset.train_images.shape[1:]))
  return '\n'.join(
    (
      f'{dataset.name}: {len(dataset.train_images):,} training images {shape}',
      *(line(name, part.params) for name, part in state.networks.items()),
      format_table(run.setup.table),
      *([describe_schedule(run.config)] if run.setup.is_quantized else []),
      f'{jax.device_count()} × {jax.devices()[0].device_kind}, {run.workdir}',
    )
  )
