"""All scores of a set of generated images, with a record of their origin."""

from typing import Any

import numpy as np

from qgan_jax.errors import UserError
from qgan_jax.metrics.extractors import Extractor, Features
from qgan_jax.metrics.frechet import frechet_distance
from qgan_jax.metrics.inception import NAME as INCEPTION
from qgan_jax.metrics.kernel import kernel_distance, kid
from qgan_jax.metrics.modes import (
  effective_rank,
  inception_score,
  kl_to_reference,
  mode_histogram,
  modes_covered,
)
from qgan_jax.metrics.neighbours import neighbour_scores

# The inception score has 10 splits, and coverage needs 5 neighbours.
_MIN_IMAGES = 10


def _class_scores(
  real: np.ndarray, fake: np.ndarray, seed: int
) -> dict[str, Any]:
  histogram, reference = mode_histogram(fake), mode_histogram(real)
  mean, std = inception_score(fake, seed=seed)
  return {
    'inception_score_mean': mean,
    'inception_score_std': std,
    'mode_histogram': histogram.tolist(),
    'modes_covered': modes_covered(histogram, reference),
    'modes': int(np.count_nonzero(reference)),
    'mode_kl': kl_to_reference(histogram, reference),
  }


def _as_many(real: np.ndarray, fake: np.ndarray, seed: int) -> list[np.ndarray]:
  """Equally many of both, drawn at random, since images may be sorted."""
  count = min(len(real), len(fake))
  rng = np.random.default_rng(seed)
  return [x[rng.choice(len(x), count, replace=False)] for x in (real, fake)]


def check_counts(num_real: int, num_fake: int) -> None:
  """Refuses to score too few images; can be called before training.

  Args:
    num_real: Number of held-out images.
    num_fake: Number of generated images.

  Raises:
    UserError: There are too few of either.
  """
  if num_real < _MIN_IMAGES:
    raise UserError(
      f'scores need at least {_MIN_IMAGES} held-out images, and there are '
      f'{num_real}: a tenth of the images is held out, so give '
      f'{10 * _MIN_IMAGES} images or more'
    )
  if num_fake < _MIN_IMAGES:
    raise UserError(
      f'scores need at least {_MIN_IMAGES} generated images, and {num_fake} '
      'are asked for: ask for more'
    )


def score_features(
  extractor: Extractor, real: Features, fake: Features, *, seed: int = 0
) -> dict[str, Any]:
  """Like `score`, but for features that `extractor` has already computed.

  Use it to score many sets of images against one reference.

  Args:
    extractor: The extractor that computed the features.
    real: Features of the reference images.
    fake: Features of the generated images.
    seed: As for `score`.
  """
  num_real, num_fake = len(real.features), len(fake.features)
  check_counts(num_real, num_fake)
  if extractor.name == INCEPTION:
    names, kernel = ('fid', 'kid'), kid
  else:
    names, kernel = ('frechet_distance', 'kernel_distance'), kernel_distance
  mean, std = kernel(real.features, fake.features, seed=seed)
  neighbours = _as_many(real.features, fake.features, seed)
  scores = {
    names[0]: frechet_distance(real.features, fake.features),
    f'{names[1]}_mean': mean,
    f'{names[1]}_std': std,
    **neighbour_scores(*neighbours)._asdict(),
    'effective_rank': effective_rank(fake.features),
    'effective_rank_real': effective_rank(real.features),
  }
  if real.probabilities is not None and fake.probabilities is not None:
    scores |= _class_scores(real.probabilities, fake.probabilities, seed)
  return scores | {
    'extractor': {
      'name': extractor.name,
      'hash': extractor.hash,
      'resize': extractor.resize,
      'value_range': extractor.value_range,
      'accuracy': extractor.accuracy,
    },
    'num_real': num_real,
    'num_fake': num_fake,
    'num_features': real.features.shape[1],
    'num_neighbours': len(neighbours[0]),
    'seed': seed,
  }


def score(
  extractor: Extractor,
  real_images: np.ndarray,
  fake_images: np.ndarray,
  *,
  seed: int = 0,
) -> dict[str, Any]:
  """Scores generated images against reference images.

  If the reference is the samples of a float generator, and `fake_images` those
  of the quantized generator from the same latents, the Fréchet distance is qFD.

  Args:
    extractor: Computes the features in which images are compared.
    real_images: Reference images, uint8, `[N, H, W, C]`.
    fake_images: Generated images, uint8, `[M, H, W, C]`.
    seed: Seed of every choice of images: the subsets of the kernel distance,
      the images for nearest neighbours, the splits of the inception score.

  Returns:
    A dict that JSON can hold:

    - With Inception features `fid`, `kid_mean` and `kid_std`. With any others
      `frechet_distance`, `kernel_distance_mean` and `kernel_distance_std`, with
      another kernel than KID's. The deviation is None if a subset is a whole
      set.
    - `precision`, `recall`, `density` and `coverage`, of min(N, M) images of
      either set, as their authors do: ten thousand fakes would cover any few
      hundred images.
    - `effective_rank`, and `effective_rank_real` of the reference images.
    - If the extractor classifies, `inception_score_mean`,
      `inception_score_std`, `mode_histogram`, `modes_covered` (out of `modes`)
      and `mode_kl`. The reference images are classified by the same classifier,
      so that its errors cancel.
    - The provenance: `extractor`, `num_real`, `num_fake`, `num_features`,
      `num_neighbours`, `seed`.

  Raises:
    UserError: There are too few images, or the two sets have images of
      different shapes.
  """
  if real_images.shape[1:] != fake_images.shape[1:]:
    real_shape, fake_shape = (
      'x'.join(map(str, images.shape[1:]))
      for images in (real_images, fake_images)
    )
    raise UserError(
      f'the reference images are {real_shape} and the generated ones '
      f'{fake_shape}: score against the data set that the generator learned'
    )
  return score_features(
    extractor,
    extractor.extract(real_images),
    extractor.extract(fake_images),
    seed=seed,
  )
