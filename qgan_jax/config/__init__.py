"""Configs of experiments: their keys, defaults, strings, names and flags.

An experiment's file needs `base` and `override` alone.
"""

from qgan_jax.config.check import validate
from qgan_jax.config.resolution import (
  base,
  diff,
  from_json,
  leaves,
  NETWORKS,
  override,
  resolve,
  ROLES,
  to_json,
)

__all__ = [
  'NETWORKS',
  'ROLES',
  'base',
  'diff',
  'from_json',
  'leaves',
  'override',
  'resolve',
  'to_json',
  'validate',
]
