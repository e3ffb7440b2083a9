"""Work during training: sample grids, quick scores, measurements."""

from collections.abc import Callable
from typing import Any

from qgan_jax import artifacts, metrics
from qgan_jax.data import ImageDataset
from qgan_jax.runs import build
from qgan_jax.runs.folder import make_folder
from qgan_jax.runs.opened import Opened
from qgan_jax.runs.phases import phase
from qgan_jax.training import diagnosis, loop
from qgan_jax.training.sampling import CHOICE_SEED
from qgan_jax.training.state import TrainState
from qgan_jax.training.tracking import Tracker

_GRID = 64  # Images in a sample grid.
_EXAMPLES = 64  # Images that quantization is measured on.

# What extracts features of images, and the features of training images.
Scale = tuple[metrics.Extractor, metrics.Features]


def make_features(config: Any, dataset: ImageDataset) -> Scale:
  """The extractor of quick scores, and features of training images."""
  with phase('preparing the features that scores compare'):
    extractor = build.make_extractor(config, dataset)
    # Training images choose the best checkpoint; held-out ones only score it.
    count = min(10_000, len(dataset.train_images))
    reference = extractor.extract(dataset.train_targets[:count])
  return extractor, reference


def periodic(
  run: Opened,
  dataset: ImageDataset,
  features: Callable[[], Scale] | None,
  tracker: Tracker,
  made: dict[Any, diagnosis.Diagnose],
) -> tuple[loop.Periodic, ...]:
  """Sample grids and quick scores; only the primary process makes them.

  Args:
    run: the trial.
    dataset: its images.
    features: makes what quick scores compare; called when first needed. None in
      all other processes.
    tracker: of the trial.
    made: a cache of the compiled functions of the diagnosis by precision, for
      all trials.
  """
  if features is None:
    return ()
  config = run.config
  samples = run.workdir / 'samples'

  def save_samples(step: int, state: TrainState) -> dict[str, float]:
    make_folder(samples)
    path = samples / f'step_{step:07d}.png'
    images = run.sampler(state, _GRID)
    artifacts.save_grid(
      path, images, description=f'{dataset.name}, step {step}'
    )
    tracker.images(step, 'samples', artifacts.grid(images))
    return loop.singular_values(state)

  def evaluate(step: int, state: TrainState) -> dict[str, float]:
    extractor, reference = features()
    count = config.logging.eval_samples
    labels = run.setup.labels_to_draw(count)
    drawn = run.sampler(state, count, seed=CHOICE_SEED, labels=labels)
    fake = extractor.extract(drawn)
    distance = metrics.frechet_distance(reference.features, fake.features)
    run.checkpoints.save_best(step, state, distance)
    values = {
      'eval/frechet_distance_train': distance,
      'eval/effective_rank': metrics.effective_rank(fake.features),
    }
    if fake.probabilities is not None and reference.probabilities is not None:
      histogram = metrics.mode_histogram(fake.probabilities)
      real = metrics.mode_histogram(reference.probabilities)
      values['eval/mode_kl'] = metrics.kl_to_reference(histogram, real)
      values['eval/modes_covered'] = metrics.modes_covered(histogram, real)
    return values

  return (
    loop.Periodic(config.logging.sample_every, save_samples),
    loop.Periodic(config.logging.eval_every, evaluate),
    *_diagnosis(run, dataset, tracker, made),
  )


def _diagnosis(
  run: Opened,
  dataset: ImageDataset,
  tracker: Tracker,
  made: dict[Any, diagnosis.Diagnose],
) -> tuple[loop.Periodic, ...]:
  """Logs what quantization does; nothing for networks in float.

  `made` caches the compiled functions by precision, for all trials.
  """
  config = run.config
  if not config.logging.diagnose or not run.setup.is_quantized:
    return ()
  size = min(_EXAMPLES, len(dataset.train_images))
  batch = {'images': dataset.train_images[None, :size]}
  if run.setup.labels is not None:
    batch['labels'] = run.setup.labels[None, :size]
  key = run.setup.static
  refit = run.setup.refit()

  def diagnose(step: int, state: TrainState) -> dict[str, float]:
    if step == config.steps:
      tracker.message('measuring what quantization does to each tensor…')
    if key not in made:
      made[key] = run.setup.diagnosis()
    report = made[key](refit.for_target(state), batch)
    if step == config.steps:
      tracker.message(diagnosis.format_report(report))
    return {
      f'quantization/{place}/{name}': value
      for place, numbers in report.items()
      for name, value in numbers.items()
    }

  return (
    loop.Periodic(config.logging.diagnose_every or config.steps, diagnose),
  )
