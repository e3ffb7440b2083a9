"""Scores of diversity: class histogram, inception score, effective rank."""

import numpy as np


def mode_histogram(probabilities: np.ndarray) -> np.ndarray:
  """For each class, how many images most probably belong to it, `[K]`, int.

  Args:
    probabilities: Class probabilities of the images, `[N, K]`.
  """
  classes = probabilities.shape[1]
  return np.bincount(probabilities.argmax(1), minlength=classes)


def modes_covered(histogram: np.ndarray, reference: np.ndarray) -> int:
  """Number of the reference's classes with at least one generated image.

  Args:
    histogram: `mode_histogram` of the generated images, `[K]`.
    reference: The same of the reference images, `[K]`.

  Source: Metz et al. (1611.02163), section 3.3.1.
  """
  return int(np.count_nonzero((histogram > 0) & (reference > 0)))


def kl_to_reference(histogram: np.ndarray, reference: np.ndarray) -> float:
  """KL(generated ‖ reference) of two class histograms, in nats.

  A class without a reference image is counted as having one, so that the result
  is finite.

  Args:
    histogram: `mode_histogram` of the generated images, `[K]`.
    reference: The same of the reference images, `[K]`.

  Source: Metz et al. (1611.02163), section 3.3.1 ("reverse KL").
  """
  p = histogram / histogram.sum()
  q = np.maximum(reference, 1)
  q = q / q.sum()
  seen = p > 0
  return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


def inception_score(
  probabilities: np.ndarray, *, num_splits: int = 10, seed: int = 0
) -> tuple[float, float]:
  """Exponential of the mean KL(p(y|x) ‖ p(y)), over shuffled splits.

  Args:
    probabilities: Class probabilities of the generated images, `[N, K]`, N ≥
      `num_splits`.
    num_splits: Number of parts into which the shuffled images are divided.
    seed: Seed of the shuffle.

  Returns:
    Mean and standard deviation over the splits. The mean is between 1 and K.

  Source: Salimans et al. (1606.03498), section 4.
  """
  order = np.random.default_rng(seed).permutation(len(probabilities))
  # The smallest float32 stands for 0, whose contribution p·log p is 0.
  p = np.maximum(probabilities[order].astype(np.float64), 1e-38)
  scores = [
    np.exp(np.mean(np.sum(q * (np.log(q) - np.log(q.mean(0))), axis=1)))
    for q in np.array_split(p, num_splits)
  ]
  return float(np.mean(scores)), float(np.std(scores))


def effective_rank(features: np.ndarray) -> float:
  """Exponential of the entropy of the normalised singular values.

  Args:
    features: Features of the images, `[N, D]`; they are not centred.

  Returns:
    A number between 1 (all images are multiples of one) and min(N, D); 0 if
    every feature is zero.

  Source: Roy and Vetterli (EUSIPCO 2007), definition 1.
  """
  features = np.asarray(features, np.float64)
  # Eigenvalues of the Gram matrix: minutes faster than an SVD at D = 2048.
  values = np.sqrt(np.linalg.eigvalsh(features.T @ features).clip(0))
  values = values[values > 0]
  if not values.size:
    return 0.0
  p = values / values.sum()
  return float(np.exp(-np.sum(p * np.log(p))))
