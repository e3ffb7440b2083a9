"""Feature extractors, and how a network is made into one."""

from collections.abc import Callable, Mapping
import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np


class Features(NamedTuple):
  """The result of an extractor for N images.

  Attributes:
    features: `[N, D]`, float32.
    probabilities: Class probabilities `[N, K]`, float32; None if the network's
      classes do not describe the content of an image.
  """

  features: np.ndarray
  probabilities: np.ndarray | None


class Extractor(NamedTuple):
  """A feature extractor, with a record of where it comes from.

  Attributes:
    name: What it is and what it was trained on.
    hash: First 12 hexadecimal digits of the SHA-256 of its weights.
    resize: How images are brought to its input size.
    value_range: The pixel values that its network gets.
    accuracy: On the test images of its own task; None if not measured.
    extract: Maps uint8 images `[N, H, W, C]` to `Features`.
  """

  name: str
  hash: str
  resize: str
  value_range: str
  accuracy: float | None
  extract: Callable[[np.ndarray], Features]


def over_grey(images: np.ndarray) -> np.ndarray:
  """Lays images of 4 channels over a grey of 128, for networks that take 3.

  On grey, dark and bright outlines are both visible; on black or white, one of
  them is not.

  Args:
    images: uint8 `[N, H, W, C]`; if `C` is 4, RGBA with colours multiplied by
      alpha.

  Returns:
    uint8 `[N, H, W, 3]`. Images with another number of channels are returned as
    they are.
  """
  if images.shape[-1] != 4:
    return images
  through = 255 - images[..., 3:].astype(np.uint16)
  result = images[..., :3] + (through * 128 + 127) // 255
  # A generator may draw colours that are brighter than their alpha.
  return np.minimum(result, 255).astype(np.uint8)


def hash_weights(weights: Mapping[str, np.ndarray]) -> str:
  """First 12 hexadecimal digits of the SHA-256 of named arrays in any order."""
  digest = hashlib.sha256()
  for name in sorted(weights):
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(weights[name]).tobytes())
  return digest.hexdigest()[:12]


def in_batches(
  network: Callable[..., Any],
  params: Any,
  *,
  batch_size: int,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
  """Makes a function that runs a network on any number of images.

  Images are processed in batches of one size. The last batch is filled up with
  black images, so there is one compilation for each image shape, and memory
  does not grow with N. Images of 4 channels are laid over grey.

  Args:
    network: Maps (params, uint8 images `[batch_size, H, W, C]`) to (features
      `[batch_size, D]`, logits `[batch_size, K]`).
    params: The network's parameters.
    batch_size: Images in one call.

  Returns:
    A function from uint8 images `[N, H, W, C]` to float32 features `[N, D]` and
    class probabilities `[N, K]`.
  """

  @jax.jit
  def apply(params, images):
    # Accelerators round the inputs of matrix products by default (TF32, bf16).
    with jax.default_matmul_precision('highest'):
      features, logits = network(params, images)
    return features, jax.nn.softmax(logits)

  def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    outputs = []
    for start in range(0, len(images), batch_size):
      batch = over_grey(images[start : start + batch_size])
      padding = [(0, batch_size - len(batch))] + [(0, 0)] * 3
      outputs.append(jax.device_get(apply(params, np.pad(batch, padding))))
    features, probabilities = (
      np.concatenate(x) for x in zip(*outputs, strict=True)
    )
    return features[: len(images)], probabilities[: len(images)]

  return extract
