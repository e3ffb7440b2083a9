r"""Scores a run's checkpoints, or an artifact, again.

  python -m qgan_jax.evaluate --workdir=runs/mnist/bits=8-s0
  python -m qgan_jax.evaluate --workdir=runs/mnist/bits=8-s0 --step=15000
  python -m qgan_jax.evaluate --artifact=generator.qgan \
      --config=experiments/digits.py

The data set, the held-out images and the extractor are those of the config.
Prints the scores as JSON.
"""

import json
from pathlib import Path
import sys
from typing import Any

from absl import flags
import numpy as np

from qgan_jax import artifacts, errors, metrics
from qgan_jax.artifacts import drawing
from qgan_jax.config import flags as config_flags
from qgan_jax.data import ImageDataset
from qgan_jax.runs import build
from qgan_jax.runs.folder import read_run
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.sampling import Sampler
from qgan_jax.training.state import TrainState


def score_state(
  state: TrainState,
  sampler: Sampler,
  extractor: metrics.Extractor,
  dataset: ImageDataset,
  *,
  samples: int,
  seed: int = 0,
) -> dict[str, Any]:
  """Scores a state's moving average against the held-out images."""
  fake = sampler(state, samples, seed=seed)
  scores = metrics.score(extractor, dataset.test_images, fake)
  return {
    'step': int(state.step),
    'weights': 'moving average',
    'latents_seed': seed,
    'reference': f'{dataset.name}, held-out',
    **scores,
  }


def score_artifact(
  path: str,
  extractor: metrics.Extractor,
  dataset: ImageDataset,
  *,
  samples: int,
  seed: int = 0,
) -> dict[str, Any]:
  """Scores an artifact of any format against the held-out images."""
  drawer = artifacts.open_drawer(path)
  drawn = drawing.batches(drawer, num=samples, seed=seed)
  fake = np.concatenate([images for images, _ in drawn])
  return {
    'artifact': path,
    'weights': f'as exported, drawn in {drawer.runtime}',
    'latents_seed': seed,
    'reference': f'{dataset.name}, held-out',
    **metrics.score(extractor, dataset.test_images, fake),
  }


def evaluate_run(
  workdir: Path, step: int | None, samples: int | None, seed: int
) -> Any:
  """Scores a checkpoint of a run: the best one, or that of a step."""
  config, name = read_run(workdir)
  dataset = build.load_dataset(config, standin=True)
  if dataset.name != name:
    raise errors.UserError(
      f'the run learned {name}, and what is found now is {dataset.name}'
    )
  setup = build.set_up(config, dataset)
  like = setup.state_shapes()
  checkpoints = Checkpoints(workdir / 'checkpoints', primary=False)
  if step is None:
    _, state = checkpoints.restore_best_or_latest(like)
  else:
    state = checkpoints.restore(step, like)
  return score_state(
    state,
    setup.sampler(),
    build.make_extractor(config, dataset),
    dataset,
    samples=samples or config.scores.samples,
    seed=seed,
  )


def main() -> None:
  """Parses the command line and scores; see the module's docstring."""
  config_flags.define_flags()
  workdir = flags.DEFINE_string('workdir', None, 'The folder of a run.')
  step = flags.DEFINE_integer('step', None, 'A step; the best one if unset.')
  artifact = flags.DEFINE_string(
    'artifact', None, 'A .qgan, .onnx or .stablehlo file.'
  )
  samples = flags.DEFINE_integer(
    'samples', None, 'Images to draw; as many as the config says if unset.'
  )
  seed = flags.DEFINE_integer(
    'seed', 0, 'Of the latents: other ones show how far scores are noise.'
  )
  if not any(a.startswith(('--config', '-config')) for a in sys.argv):
    errors.parse_flags(sys.argv)
    if not workdir.value:
      raise errors.UserError(
        'give --workdir=FOLDER, or --artifact=FILE with --config=EXPERIMENT'
      )
    scores = evaluate_run(
      Path(workdir.value), step.value, samples.value, seed.value
    )
  else:
    experiment = config_flags.parse_flags(sys.argv)
    if not artifact.value:
      raise errors.UserError('--config goes with --artifact=FILE')
    config = experiment.config
    dataset = build.load_dataset(config, standin=True)
    scores = score_artifact(
      artifact.value,
      build.make_extractor(config, dataset),
      dataset,
      samples=samples.value or config.scores.samples,
      seed=seed.value,
    )
  print(json.dumps(scores, indent=2))


if __name__ == '__main__':
  errors.run(main)
