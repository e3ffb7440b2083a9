"""DCGAN on MNIST, 28×28 grey, both networks quantized while they train.

  python -m qgan_jax.main --config=experiments/mnist.py:bits=8,seed=1

Time and score: see README.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  return override(base(experiment='mnist'), arg)


def sweep(add):
  """What a bit width costs: float and five widths, three seeds each."""
  for bits in (32, 8, 6, 4, 3, 2):
    for seed in range(3):
      add(f'bits={bits},seed={seed}')
