"""The results of a run: scores of its best and last state, and an artifact."""

from pathlib import Path
import shlex
from typing import Any

import flax.linen as nn

from qgan_jax import artifacts, metrics
from qgan_jax.artifacts import architecture
from qgan_jax.config.names import config_string_of, public_string_of
from qgan_jax.records import write_json
from qgan_jax.runs import build
from qgan_jax.runs.folder import versions
from qgan_jax.runs.phases import phase
from qgan_jax.runs.score import score_state
from qgan_jax.training.state import TrainState


def deliver(
  workdir: Path,
  setup: build.Setup,
  *,
  best: TrainState,
  last: TrainState,
  extractor: metrics.Extractor,
) -> tuple[dict[str, Any], str]:
  """Packs the network of the best state; scores the best and the last state.

  Args:
    workdir: of the run, for `scores.json` and `generator.qgan` (named after the
      delivered network).
    setup: of the run.
    best: the state to pack.
    last: the state after the last step.
    extractor: computes the features that scores compare.

  Returns:
    The content of `scores.json`, and a summary in words.
  """
  config, dataset, sampler = setup.config, setup.dataset, setup.sampler()
  path = workdir / f'{setup.variant.delivered}.qgan'
  network = sampler.quantized(best)
  # Names of labels, for a network that takes some.
  names = {'class_names': list(dataset.class_names)}
  # How pictures are fitted, for a network that is called with some.
  fitting = {
    'fit': config.data.fit,
    'pixel_art': dataset.pixel_art,
    'white': dataset.white,
  }
  sizes = artifacts.save(
    path,
    network,
    metadata={
      **(names if setup.labels is not None else {}),
      **({'input_images': fitting} if dataset.input_channels else {}),
      'dataset': dataset.name,
      'config': public_string_of(config),
      'experiment': config.experiment,
      'seed': config.seed,
      'step': int(best.step),
      'versions': versions(),
    },
  )
  scores: dict[str, Any] = {
    'dataset': dataset.name,
    'config': config_string_of(config),
    'sizes': {**sizes._asdict(), 'ratio': sizes.ratio},
  }
  with phase('scoring'):
    for name, state in (('best', best), ('last', last)):
      same = name == 'last' and int(best.step) == int(last.step)
      scores[name] = (
        scores['best']
        if same
        else score_state(state, setup, extractor, samples=config.scores.samples)
      )
  write_json(workdir / 'scores.json', scores)
  from_images = dataset.input_channels > 0
  return scores, _summary(scores, path) + how_to_draw(
    network.module, path, from_images=from_images
  )


def how_to_draw(
  module: nn.Module, path: Path, *, from_images: bool = False
) -> str:
  """The line of a summary that tells how to draw from the file."""
  record = architecture.record_of(module)
  place, _, name = record['model'].rpartition(':')
  is_importable = place != '__main__' and '<locals>' not in name
  if not is_importable or record['model_kwargs'] is None:
    # No command could make the module again.
    return f"\n  draw from it: qgan_jax.load('{path}', module=…)"
  own = f'--module={place} ' if place else ''
  what = '--num=64 --out=grid.png'
  if from_images:
    what = '--images=FOLDER --out=made/'
  file = shlex.quote(f'--artifact={path}')
  return f'\n  draw from it: python -m qgan_jax.sample {own}{file} {what}'


def _summary(scores: dict[str, Any], path: Path) -> str:
  sizes = scores['sizes']
  lines = [f'{scores["config"]} on {scores["dataset"]}']
  for name in ('best', 'last'):
    s = scores[name]
    if 'fid' in s:
      distances = f'FID {s["fid"]:.2f}  KID {s["kid_mean"]:.4f}'
    else:
      distances = (
        f'frechet_distance {s["frechet_distance"]:.2f}  '
        f'kernel_distance {s["kernel_distance_mean"]:.4f}'
      )
    lines.append(
      f'  {name:4} step {s["step"]:>7,}: {distances}  '
      f'precision {s["precision"]:.3f}  '
      f'recall {s["recall"]:.3f}  density {s["density"]:.3f}  '
      f'coverage {s["coverage"]:.3f}'
    )
    if 'elbo' in s:
      lines.append(
        f'       held-out images: ELBO {s["elbo"]:.2f} nats, '
        f'importance-weighted {s["importance_weighted_bound"]:.2f}, '
        f'reconstruction error {s["reconstruction_error"]:.4f}'
      )
    if 'psnr' in s:
      lines.append(
        f'       held-out pairs: L1 {s["l1"]:.4f}, PSNR {s["psnr"]:.2f} dB, '
        f'SSIM {s["ssim"]:.4f}'
      )
    lines += [f'       note: {caveat}' for caveat in s['caveats']]
  extractor = scores['best']['extractor']
  lines += [
    f'  features: {extractor["name"]} {extractor["hash"]}, '
    f'{scores["best"]["num_fake"]:,} samples against '
    f'{scores["best"]["num_real"]:,} held-out images',
    f'  {path}: {sizes["artifact_bytes"]:,} bytes, '
    f'{sizes["ratio"]:.2f}× smaller than float32',
  ]
  return '\n'.join(lines)
