"""Trains, scores and delivers trials that share one compiled program.

A run of `qgan_jax.main` is one trial; `qgan_jax.population` trains several.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import logging
import sys
from typing import Any

import jax

from qgan_jax import metrics, records
from qgan_jax.config.names import public_leaves
from qgan_jax.errors import UserError
from qgan_jax.runs import build, inputs, pictures
from qgan_jax.runs.deliver import deliver
from qgan_jax.runs.opened import describe, open_trial, Opened, Trial
from qgan_jax.runs.periodic import make_features, periodic
from qgan_jax.runs.phases import phase
from qgan_jax.runs.shared import make_layout, shared_config
from qgan_jax.training import devices, diagnosis, loop
from qgan_jax.training.state import fill, TrainState
from qgan_jax.training.tracking import Tracker

PyTree = Any


@contextlib.contextmanager
def exit_when_stopped() -> Iterator[None]:
  """If a signal stops training, ends the command and says how to go on."""
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


def train_and_deliver(trials: Sequence[Trial]) -> None:
  """Trains trials together, scores them and writes their artifacts.

  Args:
    trials: all with the same `program_key`.

  Raises:
    UserError: a trial cannot be run, another process uses its folder, or one of
      its values was not finite. In the last case, the other trials are
      delivered first.
    loop.Stopped: the process received SIGTERM or Ctrl-C.
  """
  with contextlib.ExitStack() as held:
    _train_and_deliver(trials, held)


def _train_and_deliver(
  trials: Sequence[Trial], held: contextlib.ExitStack
) -> None:
  """As `train_and_deliver`; `held` keeps the locks of the folders."""
  configs = [trial.experiment.config for trial in trials]
  config = configs[0]
  primary = jax.process_index() == 0
  alone = jax.process_count() == 1

  # What configs name; data, and the folders that are named for it.
  inputs.check_for_training(configs)
  with phase('reading the data', shown=primary):
    dataset = trials[0].dataset or build.load_dataset(
      config, standin=alone and len(trials) == 1
    )
  layout = make_layout(config, len(trials))
  shapes: dict[Any, TrainState] = {}
  with phase('making the networks', shown=primary):
    runs = [
      open_trial(trial, dataset, shapes, held, primary=primary)
      for trial in trials
    ]
    # States are from checkpoints where there are any.
    if len(runs) == 1:
      setup = dataclasses.replace(runs[0].setup, layout=layout)
    else:
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
    pictures.warn(dataset, conditional=config.data.conditional)
    for run, state in zip(runs, states, strict=True):
      print(describe(run, dataset, state), file=sys.stderr)
  states = devices.from_primary(states)

  features = None
  if primary:
    few = records.too_few(
      len(dataset.test_targets),
      config.scores.samples,
      metrics.NUM_FEATURES[config.scores.extractor],
    )
    if few:
      print(f'note: {few}', file=sys.stderr)
    # Made when they are needed first, so that a first grid comes before them.
    features = functools.cache(
      functools.partial(make_features, config, dataset)
    )
    if inputs.uses_inception(config):
      features()  # Of weights that cannot be read, before training.

  with contextlib.ExitStack() as stack:
    members = []
    made: dict[Any, diagnosis.Diagnose] = {}
    for i, run in enumerate(runs):
      tracker = Tracker(
        run.workdir,
        total_steps=config.steps,
        first_step=first_step,
        dataset=dataset.name,
        experiment=run.config.experiment,
        hyperparameters=public_leaves(run.config),
        tracker=run.config.logging.tracker,
        primary=primary,
        shown=i == 0,
      )
      stack.enter_context(tracker)
      members.append(
        loop.Member(
          batches=run.setup.batches(layout),
          checkpoints=run.checkpoints,
          tracker=tracker,
          periodic=periodic(run, dataset, features, tracker, made),
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
      steps_per_call=setup.steps_per_call,
      refit=setup.refit(),
    )
    for member in members:
      member.tracker.end_bar()
    if features is not None:
      extractor, _ = features()
      for i, (run, member, last) in enumerate(
        zip(runs, members, ended.states, strict=True)
      ):
        if last is not None:
          try:
            best = run.checkpoints.restore_best(run.shapes)
            scores, summary = deliver(
              run.workdir,
              run.setup,
              best=best[1] if best else last,
              last=last,
              extractor=extractor,
            )
            member.tracker.scores(scores['best']['step'], scores['best'])
          except UserError as error:  # The others are delivered all the same.
            ended.problems[i] = str(error)
          else:
            print(summary, flush=True)
  if ended.problems:
    raise UserError(
      *(
        why if len(runs) == 1 else f'{runs[i].workdir}: {why}'
        for i, why in ended.problems.items()
      )
    )


def _resume(
  runs: Sequence[Opened], states: list[TrainState], *, primary: bool
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
