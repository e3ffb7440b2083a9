"""DCGAN on scikit-learn's 1,797 digits: minutes on a CPU, and no download.

  python -m qgan_jax.main --config=digits:bits=8,seed=0

The time is in the README.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  return override(base(experiment='digits', steps=1_000), arg)


def sweep(add):
  """Float against three bit widths, once each: a demonstration."""
  for bits in (32, 8, 4, 2):
    add(f'bits={bits},seed=0')
