"""Configs of experiments: their keys, defaults, strings, names and flags.

An experiment's file needs `base` and `override` alone.
"""

from qgan_jax.config.check import periods, validate
from qgan_jax.config.keys import NETWORKS, ROLES
from qgan_jax.config.records import diff, from_json, to_json
from qgan_jax.config.resolution import base, leaves, override, resolve

__all__ = [
  'NETWORKS',
  'ROLES',
  'base',
  'diff',
  'from_json',
  'leaves',
  'override',
  'periods',
  'resolve',
  'to_json',
  'validate',
]
