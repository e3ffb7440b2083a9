"""What a set of scores cannot say, in sentences: the one place that decides."""

from collections.abc import Mapping
from typing import Any

# A generator with less coverage than this has not learned. On MNIST, noise has
# a coverage of 0.007, the same seven images again and again have 0.013, and the
# worst generator in docs/results.md has 0.54.
LEAST_COVERAGE = 0.05
# Of copies and samples like new images in equal parts, `data_copying` is 3/4.
MOST_COPYING = 0.75


def has_learned(coverage: float | None) -> bool:
  """Whether a generator's samples cover some of the data.

  Args:
    coverage: of Naeem et al., https://arxiv.org/abs/2002.09797; None or NaN
      where it is not known, which is no sign against a generator.
  """
  return coverage is None or not coverage < LEAST_COVERAGE


def too_few(num_real: int, num_fake: int, num_features: int) -> str:
  """What is wrong with the numbers of images that are compared, or ''.

  Of as many images as features, or fewer, the covariance has no full rank, and
  the Fréchet distance is mostly bias: 30 held-out images of MNIST are at 154
  from training images, 128 at 20, and 10,000 at 1.2.

  Args:
    num_real: held-out images.
    num_fake: generated ones.
    num_features: that an extractor gives of an image.
  """
  kinds = {'held-out': num_real, 'generated': num_fake}
  kind = min(kinds, key=kinds.__getitem__)
  if kinds[kind] > num_features:
    return ''
  return (
    f'{kinds[kind]:,} {kind} images are too few for a distance in '
    f'{num_features:,} features: it is too large by much, and small '
    f'differences of it say nothing; it takes more than {num_features:,}, and '
    'better ten times as many'
  )


def caveats(scores: Mapping[str, Any]) -> list[str]:
  """Sentences about one checkpoint's scores; none where they are sound.

  Args:
    scores: what `metrics.score` returned, or what an earlier version wrote.
  """
  found = []
  coverage = scores.get('coverage')
  if not has_learned(coverage):
    found.append(
      f'coverage is {coverage:.3f}: hardly any held-out image has a sample '
      'near it, so this network has not learned the data, or draws a few '
      'images again and again'
    )
  copied = scores.get('data_copying')
  if copied is not None and copied >= MOST_COPYING:
    found.append(
      f'data_copying is {copied:.2f}: samples lie nearer to training images '
      'than new images do, as copies would; look at them beside those'
    )
  few = of_too_few(scores)
  return [*found, few] if few else found


def of_too_few(scores: Mapping[str, Any]) -> str:
  """What `too_few` says of one checkpoint's scores."""
  # Earlier versions did not say: these are all the extractors they had.
  features = scores.get('num_features', 2048 if 'fid' in scores else 128)
  return too_few(scores['num_real'], scores['num_fake'], features)
