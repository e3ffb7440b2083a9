"""The data set that every source returns, and the choice of held-out images."""

import collections
from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np

# Part of the definition of every held-out split made here: never change it.
_HOLDOUT_KEY = 0x51474A58
_MAX_HELD_OUT = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
  """A data set of decoded images, in memory or in files that are mapped.

  Attributes:
    name: What was really used: `'mnist:3.0.1'`, `'mnist (original files)'`,
      `'digits'`, `'digits (stand-in for mnist)'`, `'pictures-1a2b3c4d5e6f'`.
    train_images: uint8 `[N, H, W, C]`, values 0..255, `C` 1, 3 or 4 (RGBA, with
      colours multiplied by alpha). For pairs, the channels of the input, then
      those of the target.
    train_labels: int32 `[N]` in `[0, num_classes)`, or None.
    test_images: The held-out images, uint8 `[M, H, W, C]`.
    test_labels: int32 `[M]`, or None.
    num_classes: 0 without labels.
    class_names: Names of the labels; empty if they are not known.
    is_standin: Whether this replaces the data set that was asked for.
    pictures: A digest of each picture's file, sorted; empty if the name alone
      identifies the data.
    input_channels: For pairs, the number of channels of the input; otherwise 0.
    domains: For inputs and targets that are not pairs, how many different ones
      there are: inputs and targets to train on, and those held out. The first
      so many rows of the images hold each once. None for anything else.
    pixel_art: Whether its pictures were scaled as pixel art, see
      `images.to_array`.
    white: The value of 16 bits that became 255.
  """

  name: str
  train_images: np.ndarray
  train_labels: np.ndarray | None
  test_images: np.ndarray
  test_labels: np.ndarray | None
  num_classes: int
  class_names: tuple[str, ...] = ()
  is_standin: bool = False
  pictures: tuple[str, ...] = ()
  input_channels: int = 0
  domains: tuple[int, int, int, int] | None = None
  pixel_art: bool = False
  white: int = 65535

  @property
  def is_unpaired(self) -> bool:
    """Whether inputs and targets are unrelated, and not pairs."""
    return self.domains is not None

  @property
  def train_inputs(self) -> np.ndarray:
    """The inputs, each once, uint8 `[N, H, W, input_channels]`."""
    return self._different(self.train_images, 0)[..., : self.input_channels]

  @property
  def train_targets(self) -> np.ndarray:
    """What generators learn to draw, each once: the images, or the targets."""
    return self._different(self.train_images, 1)[..., self.input_channels :]

  @property
  def test_inputs(self) -> np.ndarray:
    """As `train_inputs`, of the held-out images."""
    return self._different(self.test_images, 2)[..., : self.input_channels]

  @property
  def test_targets(self) -> np.ndarray:
    """As `train_targets`, of the held-out images."""
    return self._different(self.test_images, 3)[..., self.input_channels :]

  def _different(self, images: np.ndarray, which: int) -> np.ndarray:
    """The rows that hold the pictures of one of `domains`, each once."""
    return images if self.domains is None else images[: self.domains[which]]


def hold_out(
  num_examples: int, *, fraction: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
  """Splits `range(num_examples)` at random, but always in the same way.

  Args:
    num_examples: At least 2.
    fraction: Share that is held out; at least 1 and at most 10,000 examples.

  Returns:
    The train and the held-out indices, both int64 and ascending. They depend on
    the arguments alone.
  """
  if num_examples < 2:
    raise ValueError(f'{num_examples} example(s) cannot be split in two.')
  held_out = min(max(1, round(num_examples * fraction)), _MAX_HELD_OUT)
  # Raw Philox words, because NumPy promises their stream for ever, while
  # `Generator.permutation` may change between versions.
  words = np.random.Philox(key=_HOLDOUT_KEY).random_raw(num_examples)
  order = np.argsort(words, kind='stable')
  return np.sort(order[held_out:]), np.sort(order[:held_out])


def hold_out_by_content(
  keys: Sequence[bytes],
  labels: np.ndarray | None = None,
  *,
  fraction: float = 0.1,
) -> np.ndarray:
  """Chooses what is held out by each example's key alone.

  A key is held out if its SHA-256, as a number in [0, 1), is below a limit. So
  adding or removing examples does not move others between the two parts.
  Classes that are so small that one part would have none of them are an
  exception: their key nearest to the limit changes sides. A class of one key is
  not held out.

  Args:
    keys: One for each example; examples with the same key stay together.
    labels: Integers `[N]`, or None without classes.
    fraction: The limit; lowered if more than 10,000 would be held out.

  Returns:
    Whether each example is held out, bool `[N]`.
  """
  places = {
    key: int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64
    for key in set(keys)
  }
  limit = min(fraction, _MAX_HELD_OUT / max(1, len(keys)))
  held_out = {key for key, place in places.items() if place < limit}
  found = collections.defaultdict(set)
  for key, label in zip(
    keys, np.zeros(len(keys)) if labels is None else labels, strict=True
  ):
    found[label].add(key)
  classes = [
    sorted(found[label], key=places.__getitem__) for label in sorted(found)
  ]
  # Classes may share keys: first what has to be trained on, then the rest.
  alone = {ordered[0] for ordered in classes if len(ordered) == 1}
  held_out -= alone
  for ordered in classes:
    free = [key for key in ordered if key not in alone]
    if free and held_out.isdisjoint(ordered):
      held_out.add(free[0])
  for ordered in classes:
    if held_out.issuperset(ordered):
      held_out.discard(ordered[-1])
  return np.array([key in held_out for key in keys])


def labels_in_proportion(labels: np.ndarray, num: int) -> np.ndarray:
  """Labels for `num` images, as frequent as among given ones, and well mixed.

  Each class comes at even distances. So classes that are equally frequent come
  in turn, and the first labels are in proportion, too.

  Args:
    labels: Integers `[N]` from 0 up.
    num: How many to return.

  Returns:
    int32 `[num]`. Each class has its share of them, to within a few images.
  """
  shares = np.bincount(labels) / len(labels)
  found = np.flatnonzero(shares)
  # The k-th image of a class with the share p belongs at (k + 1/2) / p.
  counts = np.ceil(shares[found] * num).astype(int) + 1
  classes = np.repeat(found, counts)
  places = np.concatenate(
    [
      (np.arange(count) + 0.5) / share
      for count, share in zip(counts, shares[found], strict=True)
    ]
  )
  order = np.lexsort((classes, places))[:num]
  return classes[order].astype(np.int32)


def split_off_test(
  *,
  name: str,
  images: np.ndarray,
  labels: np.ndarray | None,
  num_classes: int,
  class_names: tuple[str, ...] = (),
  fraction: float = 0.1,
) -> ImageDataset:
  """Builds a data set from one array of images, split by `hold_out`."""
  train, test = hold_out(len(images), fraction=fraction)
  return ImageDataset(
    name=name,
    train_images=images[train],
    train_labels=None if labels is None else labels[train],
    test_images=images[test],
    test_labels=None if labels is None else labels[test],
    num_classes=num_classes,
    class_names=class_names,
  )
