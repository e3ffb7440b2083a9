"""Run folders and sweeps, written as the commands write them."""

import json
import math

import numpy as np

from qgan_jax.artifacts import grids

BYTES = {1: 40_000, 2: 80_000, 4: 154_000, 8: 301_000, 32: 1_186_000}
LAYERS = ('generator/project', 'generator/up0', 'discriminator/down0')


def config_of(bits=4, seed=0, **changes):
  """A resolved config; changes by dotted path, with '__' for the dot."""
  config = {
    'seed': seed,
    'steps': 100,
    'experiment': 'digits',
    'data': {'source': 'digits', 'image_size': 28},
    'logging': {'log_every': 10},
    'precision': {'quantizer': 'uniform'},
  }
  for network in ('generator', 'discriminator'):
    config[network] = {
      'bits': {'weights': bits, 'activations': bits},
      'learning_rate': 0.001,
    }
  for path, value in changes.items():
    *groups, key = path.split('__')
    inner = config
    for group in groups:
      inner = inner[group]
    inner[key] = value
  return config


def scores_of(score, bits=4, *, fake=512, **changes):
  found = {
    'step': 100,
    'weights': 'moving average',
    'reference': 'digits, held-out',
    'frechet_distance': score,
    'kernel_distance_mean': score / 100,
    'precision': 0.7,
    'recall': 0.6 - 0.1 / bits,
    'density': 0.65,
    'coverage': 0.8 - 0.1 / bits,
    'effective_rank': 12.0,
    'extractor': {
      'name': 'classifier-digits', 'hash': '0123456789ab', 'resize': 'none',
      'value_range': '[-1, 1]', 'accuracy': 0.99,
    },
    'num_real': 359,
    'num_fake': fake,
    'num_neighbours': min(359, fake),
    'seed': 0,
  }  # fmt: skip
  size = BYTES.get(bits, 50_000 * bits)
  return {
    'dataset': 'digits',
    'sizes': {
      'float_bytes': BYTES[32],
      'artifact_bytes': size,
      'ratio': BYTES[32] / size,
    },
    'best': found | changes,
    'last': found | {'frechet_distance': score + 1} | changes,
  }


def rows_of(seed=0, steps=100):
  generator = np.random.default_rng(seed)
  for step in range(10, steps + 1, 10):
    noise = generator.normal()
    yield {
      'step': step,
      'dataset': 'digits',
      'd_loss': 1 + 0.1 * noise,
      'g_loss': 0.7 + 0.1 * noise,
      'd_real_accuracy': 0.6,
      'd_fake_accuracy': 0.7,
      'd_gradient_norm': 2.0,
      'g_gradient_norm': 1.0,
      'steps_per_second': 20 + noise,
      'eval/frechet_distance_train': 1000 / step,
      **{f'sigma/{layer}': 2.0 + noise for layer in LAYERS},
      **{
        f'quantization/{layer}/{role}/sqnr_db': 30 + noise
        for layer in LAYERS
        for role in ('weights', 'activations')
      },
    }


def make_run(
  folder, bits=4, seed=0, score=3.0, *, grid=True, scores=None, **changes
):
  """A run that is done; with score=None one that is not."""
  folder.mkdir(parents=True)
  record = {
    'config': config_of(bits, seed, **changes),
    'file': 'digits',
    'arg': f'bits={bits}',
    'overrides': {'logging.log_every': 10},
    'dataset': 'digits',
    'versions': {'python': '3.11.7', 'jax': '0.10.2'},
    'devices': ['cpu', 'cpu'],
  }
  (folder / 'config.json').write_text(json.dumps(record))
  lines = [json.dumps(row) for row in rows_of(seed)]
  (folder / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  if grid:
    (folder / 'samples').mkdir()
    images = np.random.default_rng(bits).integers(0, 255, (64, 28, 28, 1))
    for step in (50, 100):
      path = folder / 'samples' / f'step_{step:07}.png'
      grids.save_grid(path, images.astype(np.uint8))
  if scores is None and score is not None:
    scores = scores_of(score, bits)
  if scores is not None:
    (folder / 'scores.json').write_text(json.dumps(scores))
  return folder


def make_sweep(folder, bits=(1, 2, 4, 8, 32), seeds=(0, 1, 2), **changes):
  """A sweep that is done: scores 2 · (1 + 1 / 2^bits) + 0.01 · seed."""
  trials = []
  for width in bits:
    for seed in seeds:
      name = f'bits={width},seed={seed}'
      score = 2 * (1 + math.exp2(-width)) + 0.01 * seed
      make_run(folder / name, width, seed, score, **changes)
      trials.append(
        {
          'name': name,
          'workdir': name,
          'config': config_of(width, seed, **changes),
          'command': f'python -m qgan_jax.main --config=x:{name}',
        }
      )
  states = {t['name']: {'state': 'done', 'seconds': 61.0} for t in trials}
  write_sweep(folder, trials, states)
  return folder


def write_sweep(folder, trials, states):
  trials = [{'args': ['--config=x'], **trial} for trial in trials]
  record = {'origin': {'file': 'x'}, 'trials': trials, 'sessions': []}
  (folder / 'sweep.json').write_text(json.dumps(record))
  (folder / 'states.json').write_text(json.dumps(states))
