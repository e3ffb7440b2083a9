"""Scores of generated images: how close they are to the data, how diverse."""

from qgan_jax.metrics import classifier, inception
from qgan_jax.metrics.classifier import classifier_extractor
from qgan_jax.metrics.copying import Copying, copying
from qgan_jax.metrics.extractors import Extractor, Features
from qgan_jax.metrics.frechet import frechet_distance
from qgan_jax.metrics.inception import inception_extractor
from qgan_jax.metrics.kernel import kernel_distance, kid
from qgan_jax.metrics.modes import (
  effective_rank,
  inception_score,
  kl_to_reference,
  mode_histogram,
  modes_covered,
)
from qgan_jax.metrics.neighbours import neighbour_scores
from qgan_jax.metrics.scores import check_counts, score, score_features
from qgan_jax.metrics.similarity import similarity

# The number of features of an image, by the extractor's name in a config.
NUM_FEATURES = {
  'classifier': classifier.NUM_FEATURES,
  'inception': inception.NUM_FEATURES,
}

__all__ = (
  'NUM_FEATURES',
  'Copying',
  'Extractor',
  'Features',
  'check_counts',
  'classifier_extractor',
  'copying',
  'effective_rank',
  'frechet_distance',
  'inception_extractor',
  'inception_score',
  'kernel_distance',
  'kid',
  'kl_to_reference',
  'mode_histogram',
  'modes_covered',
  'neighbour_scores',
  'score',
  'score_features',
  'similarity',
)
