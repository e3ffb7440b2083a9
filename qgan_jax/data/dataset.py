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
    is_unpaired: Whether inputs and targets are unrelated, and not pairs.
    pixel_art: Whether its pictures were scaled as pixel art, see
      `images.to_array`.
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
  is_unpaired: bool = False
  pixel_art: bool = False

  @property
  def train_inputs(self) -> np.ndarray:
    """The inputs of pairs, uint8 `[N, H, W, input_channels]`."""
    return self.train_images[..., : self.input_channels]

  @property
  def test_inputs(self) -> np.ndarray:
    """The same for the held-out images."""
    return self.test_images[..., : self.input_channels]

  @property
  def train_targets(self) -> np.ndarray:
    """What generators learn to draw: the images, or the targets of pairs."""
    return self.train_images[..., self.input_channels :]

  @property
  def test_targets(self) -> np.ndarray:
    """The same for the held-out images."""
    return self.test_images[..., self.input_channels :]


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
  classes = collections.defaultdict(set)
  for key, label in zip(
    keys, np.zeros(len(keys)) if labels is None else labels, strict=True
  ):
    classes[label].add(key)
  for label in sorted(classes):
    ordered = sorted(classes[label], key=places.__getitem__)
    held_out.add(ordered[0])
    held_out.discard(ordered[-1])
  return np.array([key in held_out for key in keys])


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
