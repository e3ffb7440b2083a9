"""DCGAN on MNIST, 28×28 grey, both networks quantized while they train.

  python -m qgan_jax.main --config=experiments/mnist.py:bits=8,seed=1

Time and score: see README.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  config = base(
    experiment='mnist',
    steps=8_000,
    batch_size=32,
    learning_rate=1e-3,
    penalty='r1',
    penalty_weight=1.0,
    eval_every=1_000,
  )
  return override(config, arg)


def sweep(add):
  """What a bit width costs: float and five widths, three seeds each."""
  for bits in (32, 8, 6, 4, 3, 2):
    for seed in range(3):
      add(f'bits={bits},seed={seed}')
