"""The loop: steps in order, what is seen of them, and stopping well."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import signal
from types import FrameType
from typing import Any

import jax
import numpy as np

from qgan_jax.data import Batches
from qgan_jax.errors import UserError
from qgan_jax.precision import is_weight
from qgan_jax.training import devices
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.state import TrainState
from qgan_jax.training.tracking import Tracker

PyTree = Any


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
  """Collects SIGTERM and Ctrl-C; a second one acts as it always does."""
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


def _batch(batches: Batches, step: int, d_steps: int) -> dict[str, np.ndarray]:
  """The batches of D's updates in a step, stacked."""
  parts = [batches.at(step * d_steps + i) for i in range(d_steps)]
  images, labels = zip(*parts, strict=True)
  batch = {'images': np.stack(images)}
  if labels[0] is not None:
    batch['labels'] = np.stack(labels)
  return batch


def diagnosis(step: int, metrics: Mapping[str, PyTree]) -> str:
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
    if name != 'finite' and not np.isfinite(value)
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
  for name in ('generator', 'discriminator'):
    params = getattr(state, name).params
    for path, w in jax.tree.leaves_with_path(params):
      keys = tuple(key.key for key in path)
      if is_weight(keys, w):
        matrix = np.asarray(w).reshape(-1, w.shape[-1])
        layer = '/'.join(keys[:-1])
        values[f'sigma/{name}/{layer}'] = float(np.linalg.norm(matrix, 2))
  return values


def train(
  state: TrainState,
  step_fn: Callable[..., tuple[TrainState, PyTree]],
  *,
  batches: Batches,
  total_steps: int,
  d_steps: int,
  log_every: int,
  checkpoint_every: int,
  periodic: tuple[Periodic, ...],
  checkpoints: Checkpoints,
  tracker: Tracker,
) -> TrainState:
  """Trains up to a step.

  Args:
    state: where to start, on the host.
    step_fn: the pmapped step.
    batches: the data, by step number.
    total_steps: the step to end with.
    d_steps: updates of D in a step.
    log_every: steps from one line of metrics to the next; a line holds the
      means over these steps.
    checkpoint_every: steps from one checkpoint to the next; the last step has
      one too.
    periodic: what else is done, at multiples of its period and at the end.
    checkpoints: where the state is saved.
    tracker: where metrics go.

  Returns:
    The state after the last step, on the host.

  Raises:
    Stopped: SIGTERM or Ctrl-C; the state is saved.
    UserError: a value was not finite; the state before it is saved.
  """
  step = int(state.step)
  state = devices.replicate(state)
  window: list[PyTree] = []
  alone = jax.process_count() == 1

  def due(every: int) -> bool:
    return step % every == 0 or step == total_steps

  with _signals() as received:
    while step < total_steps:
      batch = devices.shard(_batch(batches, step, d_steps))
      with jax.transfer_guard('disallow'):
        state, metrics = step_fn(state, batch)
      window.append(metrics)
      step += 1
      tracker.advance(step)
      seen = due(log_every) or due(checkpoint_every)
      # Many processes have to stop at the same step, so they agree at times.
      stopping = (alone or seen) and devices.any_process(bool(received))
      if seen or stopping:
        fetched = jax.device_get(window)
        window = []
        host = jax.device_get(state)
        if host.halted:
          good = int(host.step)
          checkpoints.save(good, host.replace(halted=np.zeros((), bool)))
          raise UserError(diagnosis(good, fetched[good - step]))
        tracker.log(step, _means(fetched))
        if due(checkpoint_every) or stopping:
          with tracker.paused():
            checkpoints.save(step, host)
        if stopping:
          raise Stopped(step, received[0] if received else signal.SIGTERM)
      for event in periodic:
        if due(event.every):
          with tracker.paused():
            extra = event.run(step, jax.device_get(state))
          if extra:
            tracker.log(step, extra)
  return jax.device_get(state)


def _means(window: list[PyTree]) -> dict[str, float]:
  names = [name for name in window[0] if name != 'finite']
  return {name: float(np.mean([m[name] for m in window])) for name in names}
