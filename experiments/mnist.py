"""DCGAN on MNIST, 28×28 grey, both networks quantized while they train.

  python -m qgan_jax.main --config=mnist:bits=8,seed=1

Time and score are in the README.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  return override(base(experiment='mnist'), arg)


def sweep(add):
  """Seven widths of the generator's weights; all else that is quantized: 8."""
  for seed in range(3):
    add(f'bits=32,seed={seed}')
    for bits in (8, 6, 4, 3, 2, 1):
      add(f'g_w_bits={bits},d_w_bits=8,a_bits=8,seed={seed}')
