"""The training loop: calls, logs, checkpoints, and a clean stop by a signal."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import signal
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np

from qgan_jax.data import Batches, prefetched
from qgan_jax.precision import is_weight
from qgan_jax.training import devices
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.refit import Refit
from qgan_jax.training.state import TrainState
from qgan_jax.training.tracking import Tracker

PyTree = Any
_FLAGS = 'finite', 'halted'


class Stopped(Exception):
  """A signal has ended the loop; its state is saved.

  Attributes:
    step: the number of steps done.
    signal: the signal's number.
  """

  def __init__(self, step: int, number: int):
    super().__init__(f'stopped by {signal.Signals(number).name}')
    self.step = step
    self.signal = number


@dataclasses.dataclass(frozen=True)
class Periodic:
  """Something that is done with the state every so many steps.

  Attributes:
    every: the number of steps.
    run: called with (step, state on the host); returns metrics to log.
  """

  every: int
  run: Callable[[int, TrainState], Mapping[str, float]]


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
  """Collects SIGTERM and Ctrl-C; a second one has its usual effect."""
  received: list[int] = []
  previous: dict[int, Any] = {}

  def remember(number: int, frame: FrameType | None) -> None:
    del frame
    received.append(number)
    signal.signal(number, previous[number])

  for number in (int(signal.SIGINT), int(signal.SIGTERM)):
    previous[number] = signal.signal(number, remember)
  try:
    yield received
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def stack_batches(
  batches: Batches, steps: range, repeats: int, *, by_index: bool
) -> dict[str, np.ndarray]:
  """The batches of some steps, stacked.

  Args:
    batches: of a member, by number.
    steps: one after another.
    repeats: batches of a step.
    by_index: whether only the indices of the examples are wanted.

  Returns:
    'indices', int32 [steps, repeats, B / P]; or else 'images', uint8
    [steps, repeats, B / P, H, W, C], and where there are classes 'labels',
    int32 [steps, repeats, B / P].
  """
  numbers = range(steps.start * repeats, steps.stop * repeats)

  def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    joined = np.stack(parts)
    return joined.reshape(len(steps), repeats, *joined.shape[1:])

  if by_index:
    return {
      'indices': stacked([batches.indices(i) for i in numbers]).astype(np.int32)
    }
  images, labels = zip(*map(batches.at, numbers), strict=True)
  batch = {'images': stacked(images)}
  if labels[0] is not None:
    batch['labels'] = stacked(labels)
  return batch


def calls(
  first: int, last: int, steps_per_call: int, alone: Collection[int] = ()
) -> Iterator[range]:
  """The steps of each call from one step to another.

  Calls begin at multiples of their length. What lies between two of them is
  taken one step at a time if a refit is due inside it, or if training begins
  there; so a run that is stopped and resumed makes the same calls.

  Args:
    first: the step to begin with.
    last: the step to end with, a multiple of `steps_per_call`.
    steps_per_call: how many a call takes.
    alone: steps before which the state is needed on the host.
  """
  step = first
  while step < last:
    begin = step - step % steps_per_call
    block = range(begin, begin + steps_per_call)
    if step > begin or any(inner in alone for inner in block[1:]):
      block = range(step, step + 1)
    yield block
    step = block.stop


def explain_halt(step: int, metrics: Mapping[str, PyTree]) -> str:
  """Says what was not finite, from the metrics of the step that halted."""
  found = [
    f'the gradient of {network}/{"/".join(key.key for key in path)}'
    for network, flags in metrics['finite'].items()
    for path, ok in jax.tree.leaves_with_path(flags)
    if not ok
  ]
  found += [
    name
    for name, value in metrics.items()
    if name not in _FLAGS and not np.isfinite(value)
  ]
  what = ', '.join(found[:3])
  if len(found) > 3:
    what += f' and {len(found) - 3} more'
  return (
    f'step {step + 1} gave NaN or infinity in {what}; the state before it is '
    'saved. Try a lower learning_rate, a penalty (penalty=r1), '
    'spectral_norm=True, or more bits'
  )


def singular_values(state: TrainState) -> dict[str, float]:
  """The largest singular value of every weight, as [inputs, outputs]."""
  values = {}
  for name, network in state.networks.items():
    for path, w in jax.tree.leaves_with_path(network.params):
      keys = tuple(key.key for key in path)
      if is_weight(keys, w):
        matrix = np.asarray(w).reshape(-1, w.shape[-1])
        layer = '/'.join(keys[:-1])
        values[f'sigma/{name}/{layer}'] = float(np.linalg.norm(matrix, 2))
  return values


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of those that train together.

  Attributes:
    batches: its data, by step number.
    checkpoints: where its state is saved.
    tracker: where its metrics go.
    periodic: what else is done, at multiples of its period and at the end.
    own: drops leaves of the shared program's state that this run lacks (a float
      run has no scales).
  """

  batches: Batches
  checkpoints: Checkpoints
  tracker: Tracker
  periodic: tuple[Periodic, ...] = ()
  own: Callable[[TrainState], TrainState] = lambda state: state


class Ended(NamedTuple):
  """How training ended.

  Attributes:
    states: of the members, on the host; None for one that halted.
    problems: why members halted, by their index.
  """

  states: list[TrainState | None]
  problems: dict[int, str]


def train(
  states: Sequence[TrainState],
  program: devices.Program,
  members: Sequence[Member],
  *,
  total_steps: int,
  repeats: int,
  log_every: int,
  checkpoint_every: int,
  steps_per_call: int = 1,
  refit: Refit | None = None,
) -> Ended:
  """Trains all members up to a step.

  Args:
    states: of the members, where to start, on the host; all at one step.
    program: the compiled step.
    members: what belongs to each.
    total_steps: the step to end with.
    repeats: batches of a step.
    log_every: steps from one line of metrics to the next; a line holds the
      means over these steps.
    checkpoint_every: steps from one checkpoint to the next; the last step has
      one too.
    steps_per_call: steps from one look at the state, or at a signal, to the
      next; divides `total_steps` and the periods of all that is done.
    refit: fits learned quantizers where bits change; None where bits never
      change.

  Returns:
    The states after the last step. A member with a value that is not finite
    halts, its state before that is saved, and the others go on.

  Raises:
    Stopped: SIGTERM or Ctrl-C; the states are saved.
  """
  step = int(states[0].step)
  carried = program.put(states)
  window: list[PyTree] = []
  problems: dict[int, str] = {}
  alone = jax.process_count() == 1

  def due(every: int) -> bool:
    return step % every == 0 or step == total_steps

  @functools.lru_cache(maxsize=1)
  def hosts(step: int) -> list[TrainState]:
    """The members' states after this step, fetched at most once."""
    del step  # What `lru_cache` knows the state by.
    return [
      member.own(host)
      for member, host in zip(members, program.get(carried), strict=True)
    ]

  def running() -> list[tuple[int, Member]]:
    return [(i, m) for i, m in enumerate(members) if i not in problems]

  def with_batches(steps: range) -> tuple[range, PyTree]:
    return steps, program.shard(
      [
        stack_batches(m.batches, steps, repeats, by_index=program.by_index)
        for m in members
      ]
    )

  due_refits = [refit.steps(s, total_steps) for s in states] if refit else []

  def refitted(refit: Refit, states: list[TrainState]) -> list[TrainState]:
    """The states with quantizers for their next step's bits."""
    return devices.from_primary(
      [
        refit.before_step(state) if step in due and not state.halted else state
        for state, due in zip(states, due_refits, strict=True)
      ]
    )

  planned = calls(step, total_steps, steps_per_call, set().union(*due_refits))
  feed = prefetched(with_batches, planned)
  with _signals() as received, contextlib.closing(feed):
    while step < total_steps and running():
      steps, batches = next(feed)
      if refit and any(step in due for due in due_refits):
        with _all_paused(members):
          carried = program.put(refitted(refit, program.get(carried)))
      with jax.transfer_guard('disallow'):
        carried, metrics = program(carried, batches)
      window.append(metrics)
      step = steps.stop
      for _, member in running():
        member.tracker.advance(step)
      seen = due(log_every) or due(checkpoint_every)
      # Processes have to stop at the same step: they agree only at these steps.
      stopping = (alone or seen) and devices.any_process(bool(received))
      if not (
        seen
        or stopping
        or any(due(e.every) for m in members for e in m.periodic)
      ):
        continue
      if seen or stopping:
        for (i, member), told in zip(
          enumerate(members), program.metrics(window), strict=True
        ):
          if i in problems:
            continue
          if told['halted'][-1]:
            host = hosts(step)[i]
            good = int(host.step)
            member.checkpoints.save(
              good, host.replace(halted=np.zeros((), bool))
            )
            bad = jax.tree.map(lambda x, at=good - step: x[at], told)
            problems[i] = explain_halt(good, bad)
            for _, other in running()[:1]:
              member.tracker.hand_over(other.tracker)
            continue
          means = {
            name: float(np.mean(values, dtype=np.float64))
            for name, values in told.items()
            if name not in _FLAGS
          }
          member.tracker.log(step, means)
        window = []
      for i, member in running():
        events = [event for event in member.periodic if due(event.every)]
        saves = due(checkpoint_every) or stopping
        # A state that has halted is reported at the next log step.
        if not (events or saves) or hosts(step)[i].halted:
          continue
        for event in events:
          with _all_paused(members):
            extra = event.run(step, hosts(step)[i])
          if extra:
            member.tracker.log(step, extra)
        # Last: a run that resumes here does not do a saved step's events again.
        if saves:
          with _all_paused(members):
            member.checkpoints.save(step, hosts(step)[i])
      if stopping:
        raise Stopped(step, received[0] if received else signal.SIGTERM)
    # During what is done after the last step, which can take minutes.
    if running() and devices.any_process(bool(received)):
      raise Stopped(step, received[0] if received else signal.SIGTERM)
  return Ended(
    [None if i in problems else host for i, host in enumerate(hosts(step))],
    problems,
  )


@contextlib.contextmanager
def _all_paused(members: Sequence[Member]) -> Iterator[None]:
  """Stops the clocks of all members: work for one delays the others."""
  with contextlib.ExitStack() as stack:
    for member in members:
      stack.enter_context(member.tracker.paused())
    yield
