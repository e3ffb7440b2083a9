"""DCGAN on Fashion-MNIST, 28×28 grey.

  python -m qgan_jax.main --config=experiments/fashion_mnist.py:bits=8,seed=0

Not measured yet: neither time nor score.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  return override(base(experiment='fashion_mnist', steps=20_000), arg)


def sweep(add):
  """Which network bears fewer bits: G, D or both at 4 bits, three seeds."""
  for bits in ('bits=32', 'g_bits=4,d_bits=32', 'g_bits=32,d_bits=4', 'bits=4'):
    for seed in range(3):
      add(f'{bits},seed={seed}')
