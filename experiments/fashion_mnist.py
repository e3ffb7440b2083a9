"""DCGAN on Fashion-MNIST, 28×28 grey.

  python -m qgan_jax.main --config=fashion_mnist:bits=8,seed=0

Measured in one run of each bit width, side by side with one thread each, on 2
cores of an AMD EPYC:

  bits=32  20 minutes, Fréchet distance 0.73 (best and last checkpoint)
  bits=4   25 minutes, Fréchet distance 0.93 (last checkpoint: 1.05)

The features are those of a classifier trained on the same images. The 70,000
images were split into 60,000 and 10,000 by their order in each class, not as in
the official files.
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
