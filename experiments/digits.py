"""DCGAN on scikit-learn's 1,797 digits: minutes on a CPU, and no download.

  python -m qgan_jax.main --config=experiments/digits.py:bits=8,seed=0

Time and score: see README.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  config = base(
    experiment='digits',
    steps=1_000,
    batch_size=32,
    learning_rate=1e-3,
    penalty='r1',
    penalty_weight=1.0,
    log_every=50,
    sample_every=250,
    eval_every=500,
    checkpoint_every=500,
  )
  return override(config, arg)


def sweep(add):
  """Float against three bit widths, once each: a demonstration."""
  for bits in (32, 8, 4, 2):
    add(f'bits={bits},seed=0')
