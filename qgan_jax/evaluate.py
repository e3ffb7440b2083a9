r"""Scores a checkpoint of a run, or an artifact, again.

  python -m qgan_jax.evaluate --workdir=runs/mnist/bits=8-s0
  python -m qgan_jax.evaluate --workdir=runs/mnist/bits=8-s0 --step=15000
  python -m qgan_jax.evaluate --artifact=generator.qgan \
      --config=digits

The data set, the held-out images and the extractor of features are those of the
config. Scores are printed as JSON. With --nearest, they also tell how close
samples come to training images, and a picture shows samples beside the training
images nearest to them.
"""

from collections.abc import Sequence
import json
from pathlib import Path

from absl import flags

from qgan_jax import errors
from qgan_jax.artifacts.drawing import TIME_LIMIT
from qgan_jax.artifacts.gallery import path_of
from qgan_jax.config import flags as config_flags
from qgan_jax.runs.score import score_artifact, score_checkpoint


def main(argv: Sequence[str]) -> None:
  """Prints the scores; see the module's docstring."""
  values = flags.FlagValues()
  config_flags.define_flags(argv, values)
  errors.define_path('workdir', 'Folder of a run.', values)
  errors.define_count(
    'step', None, 'Step of the checkpoint; by default the best one.', values
  )
  errors.define_path(
    'artifact', 'A .qgan, .onnx, .tflite or .stablehlo file to score.', values
  )
  errors.define_module(values)
  errors.define_count(
    'samples',
    None,
    'Number of images to draw; by default that of the config.',
    values,
    least=2,
  )
  errors.define_seed(
    'Seed of the latents; other seeds show how much scores vary.', values
  )
  errors.define_path(
    'nearest',
    'A .png file to write, with samples beside training images.',
    values,
  )
  errors.define_time_limit(TIME_LIMIT, values)
  of_configs = ('--config', '-config', '--help_config', '-help_config')
  if not any(a.startswith(of_configs) for a in argv):
    errors.parse_flags(argv, values, __doc__)
    if not values.workdir or values.artifact:
      raise errors.UserError(
        'give --workdir=FOLDER, or --artifact=FILE with --config=EXPERIMENT'
      )
    if values['time_limit'].present:
      raise errors.UserError(
        '--time_limit does nothing with --workdir, whose run has no program of '
        'a file; leave it out'
      )
    errors.import_module(values.module)
    scores = score_checkpoint(
      Path(values.workdir),
      values.step,
      samples=values.samples,
      seed=values.seed,
      nearest=_png(values.nearest),
    )
  else:
    experiment = config_flags.parse_flags(argv, values, __doc__)
    if not values.artifact or values.workdir or values.step is not None:
      raise errors.UserError(
        '--config goes with --artifact=FILE, and not with --workdir or --step'
      )
    errors.import_module(values.module)
    scores = score_artifact(
      path_of(values.artifact),
      experiment.config,
      samples=values.samples,
      seed=values.seed,
      seconds=values.time_limit,
      nearest=_png(values.nearest),
    )
  print(json.dumps(scores, indent=2))


def _png(path: str | None) -> str | None:
  """The path of a picture to write.

  Raises:
    UserError: it is that of something else, or in a folder that is not there.
  """
  if path is not None:
    if not path.lower().endswith('.png'):
      raise errors.UserError(f'--nearest={path}: give a file that ends in .png')
    if not Path(path).parent.is_dir():
      raise errors.UserError(f'--nearest={path}: its folder is not there')
  return path


if __name__ == '__main__':
  errors.run(main)
