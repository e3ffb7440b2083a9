"""Features of a small classifier, trained on the data set that is scored.

It needs no download and is trained in seconds. Scores in its features can be
compared between runs on one data set. They are not FID, and have other names.
"""

import functools
import hashlib
import os
from pathlib import Path
import tempfile
import warnings

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors import numpy as safetensors
from safetensors import safe_open, SafetensorError

from qgan_jax.errors import cache_folder
from qgan_jax.metrics.extractors import (
  Extractor,
  Features,
  hash_weights,
  in_batches,
  over_grey,
)

# Increase it when the weights' training changes: old caches are then not used.
_RECIPE = 1
NUM_FEATURES = 128
_STEPS = 800
_BATCH = 128
_CHUNK = 1024  # Images whose digest is taken at a time.

_Weights = dict[str, np.ndarray]


class Classifier(nn.Module):
  """Two strided convolutions, 128 features, logits.

  Attributes:
    num_classes: Number of logits, K.
  """

  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps uint8 images `[N, H, W, C]` to features and logits."""
    x = images.astype(jnp.float32) / 127.5 - 1
    for width in (32, 64):
      x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
    features = nn.relu(nn.Dense(NUM_FEATURES)(x.reshape(len(x), -1)))
    return features, nn.Dense(self.num_classes)(features)


def _turn(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
  """Turns each image in one of the four ways that leave it its shape.

  They are quarter turns of a square; of others, none, a half turn, and the
  mirror images of both.
  """
  square = images.shape[1] == images.shape[2]
  turned = np.empty_like(images)
  for turn in range(4):
    chosen = images[turns == turn]
    if square:
      turned[turns == turn] = np.rot90(chosen, turn, axes=(1, 2))
    else:
      axes = tuple(axis for axis in (1, 2) if turn & axis)
      turned[turns == turn] = np.flip(chosen, axes)
  return turned


def _train(
  images: np.ndarray, labels: np.ndarray | None, num_classes: int, seed: int
) -> _Weights:
  """Adam at 1e-3 for a fixed number of steps, however many images there are."""
  model = Classifier(num_classes)
  # Compiled as one program, and not as one for each of its operations.
  params = jax.jit(model.init)(jax.random.key(seed), over_grey(images[:1]))
  optimizer = optax.adam(1e-3)
  state = optimizer.init(params)

  def loss(params, images, labels):
    _, logits = model.apply(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, labels
    ).mean()

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, images, labels):
    gradient = jax.grad(loss)(params, images, labels)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state

  rng = np.random.default_rng(seed)
  order = np.empty(0, int)
  for _ in range(_STEPS):
    while len(order) < _BATCH:
      order = np.concatenate([order, rng.permutation(len(images))])
    rows, order = order[:_BATCH], order[_BATCH:]
    if labels is None:
      targets = rng.integers(4, size=_BATCH)
      batch = _turn(over_grey(images[rows]), targets)
    else:
      targets, batch = labels[rows], over_grey(images[rows])
    params, state = step(params, state, batch, targets.astype(np.int32))
  return traverse_util.flatten_dict(jax.device_get(params), sep='/')


def _load(path: Path) -> _Weights | None:
  """The cached weights; None where there are none that can be trusted."""
  try:
    with safe_open(path, framework='numpy') as file:
      expected = (file.metadata() or {}).get('hash')
      names = file.keys()
      weights = {name: file.get_tensor(name) for name in names}
  except (OSError, SafetensorError):
    return None
  return weights if hash_weights(weights) == expected else None


def _save(path: Path, weights: _Weights) -> None:
  """Writes atomically; a cache that cannot be written is only a warning."""
  data = safetensors.save(weights, metadata={'hash': hash_weights(weights)})
  temporary = None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
      temporary = Path(file.name)
      file.write(data)
    temporary.replace(path)
  except OSError as error:
    if temporary is not None:
      temporary.unlink(missing_ok=True)
    warnings.warn(
      f'the classifier is not cached and will be trained again: {error}',
      stacklevel=3,
    )


def classifier_extractor(
  dataset_name: str,
  train_images: np.ndarray,
  train_labels: np.ndarray | None,
  test_images: np.ndarray,
  test_labels: np.ndarray | None,
  num_classes: int,
  *,
  cache_dir: str | os.PathLike | None = None,
  seed: int = 0,
) -> Extractor:
  """Trains a classifier of the data set, or loads it from the cache.

  The features are its 128 penultimate activations, after ReLU. Without labels,
  or with a single class, it learns which of four rotations an image was given
  (RotNet, Gidaris et al., 1803.07728) or, if images are not square, in which of
  four ways it was mirrored. Its name then says so, and it gives no class
  probabilities.

  It is trained on the CPU, so that the same images give the same weights.
  Images of 4 channels are laid over grey batch by batch, since all of them may
  not fit into memory.

  Args:
    dataset_name: Becomes part of the extractor's name.
    train_images: uint8, `[N, H, W, C]`.
    train_labels: Integers in [0, num_classes), `[N]`, or None.
    test_images: uint8, `[M, H, W, C]`; used only for `accuracy`.
    test_labels: `[M]`, or None.
    num_classes: Number of classes; not used without labels.
    cache_dir: Folder of the cached weights. Default: the environment variable
      `QGAN_JAX_CACHE`, else `qgan_jax/classifiers` in the XDG cache folder.
    seed: Seed of the initial weights and of the order of images.

  Raises:
    UserError: There is no folder for the cache.
  """
  # To tell one class from none, nothing has to be learned.
  supervised = train_labels is not None and num_classes > 1
  height, width = train_images.shape[1:3]
  task = 'rotations' if height == width else 'flips'
  if supervised:
    task = 'classifier'
  num_classes = num_classes if supervised else 4

  labels = np.asarray(train_labels if supervised else [], np.int32)
  shape = (len(train_images), *over_grey(train_images[:1]).shape[1:])
  recipe = (_RECIPE, task, num_classes, seed, shape)
  digest = hashlib.sha256(repr(recipe).encode())
  for start in range(0, len(train_images), _CHUNK):
    digest.update(over_grey(train_images[start : start + _CHUNK]).tobytes())
  digest.update(labels.tobytes())
  if cache_dir is None:
    cache_dir = cache_folder('cache classifiers', 'classifiers')
  folder = Path(cache_dir)
  path = folder / f'{digest.hexdigest()[:32]}.safetensors'

  weights = _load(path)
  if weights is None:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      weights = _train(
        train_images, labels if supervised else None, num_classes, seed
      )
    _save(path, weights)

  network = in_batches(
    Classifier(num_classes).apply,
    traverse_util.unflatten_dict(weights, sep='/'),
    batch_size=500,
  )

  def extract(images: np.ndarray) -> Features:
    features, probabilities = network(images)
    return Features(features, probabilities if supervised else None)

  if not supervised:
    targets = np.arange(len(test_images)) % 4
    predicted = network(_turn(test_images, targets))[1].argmax(1)
    accuracy = float((predicted == targets).mean())
  elif test_labels is not None:
    predicted = network(test_images)[1].argmax(1)
    accuracy = float((predicted == test_labels).mean())
  else:
    accuracy = None
  return Extractor(
    name=f'{task}-{dataset_name}',
    hash=hash_weights(weights),
    resize='none',
    value_range='[-1, 1]',
    accuracy=accuracy,
    extract=extract,
  )
