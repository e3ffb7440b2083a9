"""The batch of a step, from the step's number alone.

The training data is one endless sequence: for each epoch, a permutation of the
data set. Step `t` takes positions `[t·B, (t+1)·B)` of it, and assigns them to
the devices of all processes in turn. So resuming needs nothing but the step,
and the number of processes does not change what is learnt.
"""

import collections
from collections.abc import Callable, Generator, Iterable
import concurrent.futures
import dataclasses
import functools
from typing import TypeVar

import numpy as np

from qgan_jax.errors import UserError

S = TypeVar('S')
T = TypeVar('T')


def _order(seed: int, num_examples: int, epoch: int) -> np.ndarray:
  """Returns the order of one epoch, int64 `[num_examples]`, read-only."""
  key = np.array([seed, epoch], dtype=np.uint64)
  # Raw Philox words, because NumPy promises their stream for ever, while
  # `Generator.permutation` may change between versions.
  words = np.random.Philox(key=key).random_raw(num_examples)
  order = np.argsort(words, kind='stable')
  order.flags.writeable = False
  return order


# Cached by seed: members of a population ask in turn, each with its own seed.
@functools.cache
def _orders(seed: int, num_examples: int) -> Callable[[int], np.ndarray]:
  """Maps an epoch to its order; keeps two, as a batch may span two epochs."""
  order = functools.partial(_order, seed, num_examples)
  return functools.lru_cache(maxsize=2)(order)


def batch_indices(
  *,
  seed: int,
  step: int,
  batch_size: int,
  num_examples: int,
  process_index: int = 0,
  process_count: int = 1,
  process_devices: int = 1,
) -> np.ndarray:
  """Returns which examples this process gets at a step.

  Args:
    seed: 0 ≤ seed < 2⁶⁴; keys Philox (Salmon et al. 2011, "Parallel random
      numbers: as easy as 1, 2, 3") together with the epoch.
    step: Number of the training step, from 0.
    batch_size: Examples of all processes together; may exceed `num_examples`.
    num_examples: Size of the data set.
    process_index: This process, `0 ≤ process_index < process_count`.
    process_count: Number of processes.
    process_devices: Devices of each process. Example i of the batch goes to
      device i mod D, where D = `process_count` · `process_devices`.

  Returns:
    int64 `[batch_size / process_count]`, values in `[0, num_examples)`. Of
    these, example i goes to the process's device i mod `process_devices`.

  Raises:
    UserError: `batch_size` is not a positive multiple of the number of devices,
      or there are no examples.
  """
  devices = process_count * process_devices
  if batch_size < 1 or batch_size % devices:
    raise UserError(
      f'The batch size {batch_size} is not a positive multiple of the '
      f'{devices} device(s) that share it; choose one that is.'
    )
  if num_examples < 1:
    raise UserError('The data set has no examples to make batches of.')
  dealt = np.arange(batch_size).reshape(-1, process_count, process_devices)
  positions = step * batch_size + dealt[:, process_index].ravel()
  epochs, offsets = np.divmod(positions, num_examples)
  order = _orders(seed, num_examples)
  return np.concatenate(
    [
      order(epoch)[offsets[epochs == epoch]]
      for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
  """The batches of one process, by step number.

  Attributes:
    images: uint8 `[N, H, W, C]`.
    labels: int32 `[N]`, or None.
    seed: As for `batch_indices`, like all attributes below.
    batch_size: Examples of all processes together.
    process_index: This process.
    process_count: Number of processes.
    process_devices: Devices of each process.
  """

  images: np.ndarray
  labels: np.ndarray | None
  seed: int
  batch_size: int
  process_index: int = 0
  process_count: int = 1
  process_devices: int = 1

  def indices(self, step: int) -> np.ndarray:
    """Returns which examples a step gets, int64 `[B/P]`."""
    return batch_indices(
      seed=self.seed,
      step=step,
      batch_size=self.batch_size,
      num_examples=len(self.images),
      process_index=self.process_index,
      process_count=self.process_count,
      process_devices=self.process_devices,
    )

  def at(self, step: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the images, uint8 `[B/P, H, W, C]`, and labels, int32 `[B/P]`.

    The labels are None if there are none.
    """
    indices = self.indices(step)
    labels = None if self.labels is None else self.labels[indices]
    return self.images[indices], labels


def prefetched(
  make: Callable[[S], T], arguments: Iterable[S]
) -> Generator[T, None, None]:
  """Yields make(x) for each argument x; a thread prepares the next one.

  To gather 64 images of 28×28×1 takes 0.03 ms, and 256 of 64×64×3 2.5 ms. To
  hand them to a GPU takes longer, so a fast device would wait for its data.
  """
  with concurrent.futures.ThreadPoolExecutor(1, 'batches') as thread:
    coming: collections.deque[concurrent.futures.Future[T]]
    coming = collections.deque()
    for argument in arguments:
      coming.append(thread.submit(make, argument))
      if len(coming) > 1:
        yield coming.popleft().result()
    if coming:
      yield coming.popleft().result()
