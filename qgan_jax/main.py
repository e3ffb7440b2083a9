"""Trains one experiment, scores it and delivers its packed generator.

  python -m qgan_jax.main --config=experiments/digits.py:bits=8

Everything goes to --workdir, runs/EXPERIMENT/CONFIG-sSEED unless given. The
same command again resumes: a run that was stopped, killed or lost its power
ends as if it had never been.
"""

import importlib.metadata
import json
import os
from pathlib import Path
import platform
import sys
import time
from typing import Any

from absl import flags
import jax

from qgan_jax import artifacts, build, config_flags, errors, metrics
from qgan_jax import config as config_lib
from qgan_jax.config_name import config_string_of, default_workdir
from qgan_jax.data import Batches, ImageDataset
from qgan_jax.evaluate import score_state
from qgan_jax.training import devices, loop
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.sampling import make_draw
from qgan_jax.training.state import TrainState
from qgan_jax.training.tracking import Tracker

config_flags.define_flags()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where everything goes; runs/EXPERIMENT/CONFIG-sSEED.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0, for a run of many processes.'
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'How many processes; clusters tell it by themselves.'
)
_PROCESS = flags.DEFINE_integer(
  'process', None, 'Which of them this is, from 0.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'One run over all processes of a cluster.'
)

_GRID = 64  # Images in a sample grid.
_VERSIONS = ('qgan_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


def train_and_deliver(
  experiment: config_flags.Experiment, workdir: Path | None
) -> None:
  """All of a run: data, training, scores, artifact."""
  config = experiment.config
  primary = jax.process_index() == 0
  alone = jax.process_count() == 1

  # Data, and the folder that is named for it.
  dataset = build.load_dataset(config, standin=alone)
  if workdir is None:
    suffix = '-on-digits' if dataset.is_standin else ''
    workdir = Path(default_workdir(config) + suffix)
  if config.batch_size % jax.device_count():
    count = jax.device_count()
    raise errors.UserError(
      f'batch_size={config.batch_size} does not divide over {count} devices; '
      f'give a multiple, such as {-(-config.batch_size // count) * count}'
    )
  _open_workdir(workdir, experiment, dataset, primary=primary)

  # Networks, state, and where the last session left them.
  gan = build.make_gan(config, dataset)
  state = build.make_state(config, gan, dataset)
  checkpoints = Checkpoints(workdir / 'checkpoints', primary=primary)
  restored = checkpoints.restore_latest(state) if primary else None
  if restored is not None:
    first_step, state = restored
    if first_step < config.steps:
      print(f'resuming from step {first_step}', file=sys.stderr)
  elif primary:
    print(_describe(config, gan, dataset, state, workdir), file=sys.stderr)
  state = devices.from_primary(state)

  # What is seen on the way.
  draw = make_draw(
    gan.generator, latent_dim=gan.latent_dim, num_classes=gan.num_classes
  )
  extractor = build.make_extractor(config, dataset) if primary else None
  tracker = Tracker(
    workdir,
    total_steps=config.steps,
    first_step=int(state.step),
    dataset=dataset.name,
    primary=primary,
  )
  with tracker:
    state = loop.train(
      state,
      build.make_train_step(config, gan),
      batches=Batches(
        dataset.train_images,
        dataset.train_labels if gan.num_classes else None,
        seed=config.seed,
        batch_size=config.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      ),
      total_steps=config.steps,
      d_steps=config.discriminator.steps,
      log_every=config.logging.log_every,
      checkpoint_every=config.logging.checkpoint_every,
      periodic=_periodic(
        config, dataset, extractor, draw, checkpoints, tracker, workdir
      ),
      checkpoints=checkpoints,
      tracker=tracker,
    )
  if not primary or extractor is None:
    return

  # Scores of the best and the last, and what is delivered.
  best = checkpoints.restore_best(state)
  best_step, best_state = best if best else (int(state.step), state)
  sizes = artifacts.save_generator(
    workdir / 'generator.qgan',
    metadata={
      'dataset': dataset.name,
      'config': config_string_of(config),
      'experiment': config.experiment,
      'seed': config.seed,
      'step': best_step,
      'versions': _versions(),
    },
    **build.artifact_kwargs(config, gan, best_state),
  )
  scores: dict[str, Any] = {
    'dataset': dataset.name,
    'config': config_string_of(config),
    'sizes': {**sizes._asdict(), 'ratio': sizes.ratio},
  }
  print('scoring…', file=sys.stderr)
  for name, scored in (('best', best_state), ('last', state)):
    same = name == 'last' and best_step == config.steps
    scores[name] = (
      scores['best']
      if same
      else score_state(
        scored, draw, extractor, dataset, samples=config.scores.samples
      )
    )
  _write_json(workdir / 'scores.json', scores)
  print(_summary(scores, workdir))


def _periodic(
  config: Any,
  dataset: ImageDataset,
  extractor: metrics.Extractor | None,
  draw: Any,
  checkpoints: Checkpoints,
  tracker: Tracker,
  workdir: Path,
) -> tuple[loop.Periodic, ...]:
  """Sample grids and quick scores; none in processes that stay silent."""
  if extractor is None:
    return ()
  # The checkpoint is chosen by training images: held-out ones only judge it.
  count = min(10_000, len(dataset.train_images))
  reference = extractor.extract(dataset.train_images[:count])
  samples = workdir / 'samples'

  def save_samples(step: int, state: TrainState) -> dict[str, float]:
    samples.mkdir(exist_ok=True)
    path = samples / f'step_{step:07d}.png'
    images = draw(state, _GRID)
    artifacts.save_grid(
      path, images, description=f'{dataset.name}, step {step}'
    )
    tracker.images(step, 'samples', artifacts.grid(images))
    return loop.singular_values(state)

  def evaluate(step: int, state: TrainState) -> dict[str, float]:
    fake = extractor.extract(draw(state, config.logging.eval_samples))
    distance = metrics.frechet_distance(reference.features, fake.features)
    checkpoints.save_best(step, state, distance)
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
  )


def _open_workdir(
  workdir: Path,
  experiment: config_flags.Experiment,
  dataset: ImageDataset,
  *,
  primary: bool,
) -> None:
  """Records what the run is, or makes sure that it is the same as before."""
  path = workdir / 'config.json'
  record = {
    'config': json.loads(config_lib.to_json(experiment.config)),
    'file': experiment.file,
    'arg': experiment.arg,
    'overrides': experiment.overrides,
    'dataset': dataset.name,
    'versions': _versions(),
    'devices': [str(d.device_kind) for d in jax.devices()],
  }
  if path.exists():
    try:
      old = json.loads(path.read_text())
    except (OSError, ValueError) as error:
      raise errors.UserError(f'{path} cannot be read: {error}') from None
    lines = config_lib.diff(old['config'], record['config'])
    if old['dataset'] != dataset.name:
      lines.append(f'dataset: {old["dataset"]} -> {dataset.name}')
    if lines:
      raise errors.UserError(
        f'{workdir} holds a run with another config; take another --workdir, '
        f'or remove it. What differs:\n  ' + '\n  '.join(lines)
      )
  elif primary:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise errors.UserError(
        f'cannot make the folder {workdir}: {error.strerror}; give another '
        '--workdir'
      ) from None
    _write_json(path, record)


def _write_json(path: Path, value: Any) -> None:
  text = json.dumps(value, indent=2) + '\n'
  partial = path.with_name(f'{path.name}.partial')
  try:
    partial.write_text(text)
    os.replace(partial, path)
  except OSError as error:
    raise errors.UserError(
      f'{path} cannot be written: {error.strerror}'
    ) from None


def _versions() -> dict[str, str]:
  versions = {'python': platform.python_version()}
  for name in _VERSIONS:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = 'not installed'
  return versions


def _describe(
  config: Any,
  gan: build.Gan,
  dataset: ImageDataset,
  state: TrainState,
  workdir: Path,
) -> str:
  def line(name: str, network: Any, params: Any) -> str:
    count = sum(x.size for x in jax.tree.leaves(params))
    bits = network.bits
    return (
      f'{name}: {count:,} parameters, weights {bits.weights:g} bits, '
      f'activations {bits.activations:g} bits'
    )

  shape = '×'.join(map(str, dataset.train_images.shape[1:]))
  return '\n'.join(
    (
      f'{dataset.name}: {len(dataset.train_images):,} training images {shape}',
      line('generator', config.generator, state.generator.params),
      line('discriminator', config.discriminator, state.discriminator.params),
      f'{jax.device_count()} × {jax.devices()[0].device_kind}, {workdir}',
    )
  )


def _summary(scores: dict[str, Any], workdir: Path) -> str:
  sizes = scores['sizes']
  lines = [f'{scores["config"]} on {scores["dataset"]}']
  for name in ('best', 'last'):
    s = scores[name]
    key = 'fid' if 'fid' in s else 'frechet_distance'
    lines.append(
      f'  {name:4} step {s["step"]:>7,}: {key} {s[key]:.2f}  '
      f'KID {s["kid_mean"]:.4f}  precision {s["precision"]:.3f}  '
      f'recall {s["recall"]:.3f}  density {s["density"]:.3f}  '
      f'coverage {s["coverage"]:.3f}'
    )
  extractor = scores['best']['extractor']
  lines += [
    f'  features: {extractor["name"]} {extractor["hash"]}, '
    f'{scores["best"]["num_fake"]:,} samples against '
    f'{scores["best"]["num_real"]:,} held-out images',
    f'  {workdir / "generator.qgan"}: {sizes["artifact_bytes"]:,} bytes, '
    f'{sizes["ratio"]:.2f}× smaller than float32',
    '  draw from it: python -m qgan_jax.sample '
    f'--artifact={workdir / "generator.qgan"} --num=64 --out=grid.png',
  ]
  return '\n'.join(lines)


def main() -> None:
  """Parses the command line and runs; see the module's docstring."""
  experiment = config_flags.parse_flags(sys.argv)
  if _DISTRIBUTED.value or _COORDINATOR.value:
    devices.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  workdir = Path(_WORKDIR.value) if _WORKDIR.value else None
  start = time.monotonic()
  try:
    train_and_deliver(experiment, workdir)
  except loop.Stopped as stop:
    print(
      f'{stop} after step {stop.step}, which is saved; the same command goes '
      'on from there',
      file=sys.stderr,
    )
    sys.exit(128 + stop.signal)
  except errors.UserError as error:
    if jax.process_count() == 1:
      raise
    # To leave in order is to wait for the others, who wait for this one.
    print(f'error: {error}', file=sys.stderr, flush=True)
    os._exit(2)
  except KeyboardInterrupt:
    print('stopped; the same command goes on', file=sys.stderr)
    sys.exit(130)
  devices.meet('end')  # JAX gives the others 5 minutes from here.
  print(f'done in {time.monotonic() - start:.0f} s', file=sys.stderr)


if __name__ == '__main__':
  errors.run(main)
