"""Refuses keys that a person sets and that the run would not read."""

from collections.abc import Iterable, Mapping
from typing import Any

from qgan_jax import models
from qgan_jax.config.key import Key
from qgan_jax.config.keys import KEYS, NETWORKS, path_of
from qgan_jax.config.resolution import leaves
from qgan_jax.errors import UserError
from qgan_jax.variants import CLASSES


def refuse_unused(config: Any, given: Iterable[str]) -> None:
  """Refuses a key that does nothing with the others of a config.

  Defaults, those of an experiment's file among them, are not asked: they are
  there for other variants, families and data as well.

  Args:
    config: resolved and valid.
    given: names, or paths, of the keys that a person has set.

  Raises:
    UserError: one of them does nothing, with what it is for.
  """
  values = leaves(config)
  for name in given:
    key = KEYS[path_of(name)]
    for path, allowed in key.only_with.items():
      # A folder's path follows its source.
      value = str(values[path]).partition(':')[0]
      if value not in allowed:
        other = KEYS[path].short
        raise UserError(
          f'{name} does nothing with {other}={value}, as it is for '
          f'{other}={" or ".join(allowed)}; leave it out'
        )
    if key.is_attribute and not _is_taken(key, values):
      raise UserError(
        f'{name} does nothing with model={values["model.name"]}, whose '
        'networks have no such attribute; leave it out'
      )


def _is_taken(key: Key, values: Mapping[str, Any]) -> bool:
  """Whether a network that the key speaks of has it as an attribute."""
  network, _, attribute = key.path.rpartition('.')
  roles = list(CLASSES[values['variant']].values())
  if network in NETWORKS:
    # Every class that is no generator has the keys of the discriminator.
    generates = network == 'generator'
    roles = [role for role in roles if (role == 'Generator') == generates]
  return any(
    models.attributes(values['model.name'], role, {attribute: None})
    for role in roles
  )
