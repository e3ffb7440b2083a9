"""What the table of keys promises, key by key."""

import collections
import inspect

import pytest

from qgan_jax import config as config_lib
from qgan_jax import variants
from qgan_jax.config.key import Key
from qgan_jax.config.keys import (
  BROADER,
  GROUPS,
  KEYS,
  NETWORKS,
  path_of,
  ROLES,
)
from qgan_jax.errors import UserError

EVERY = [key for group in GROUPS for key in group.keys]


def each(keys=EVERY):
  return pytest.mark.parametrize('key', keys, ids=lambda key: key.path)


@each()
def test_a_default_is_allowed_and_what_is_none_is_explained(key: Key):
  defaults = [key.default, *key.by_network.values()]
  for default in filter(lambda value: value is not None, defaults):
    assert key.kind.accepts(default)
    assert type(default) is key.kind.type
  explained = key.by_network or key.follows or key.unset
  assert (key.default is None) == bool(explained)
  assert set(key.by_network) <= set(NETWORKS)
  assert key.help.endswith('.')


def test_no_two_keys_have_a_name_in_common():
  names = collections.Counter(
    name for key in EVERY for name in {key.path, key.short} if name
  )
  assert [name for name, count in names.items() if count > 1] == []
  for key in EVERY:
    assert path_of(key.path) == key.path
    assert path_of(key.short or key.path) == key.path


def test_a_config_has_these_keys_and_no_other():
  base = config_lib.leaves(config_lib.base())
  assert base == {key.path: key.default for key in EVERY}
  resolved = config_lib.resolve(config_lib.base())
  assert {*config_lib.leaves(resolved)} <= KEYS.keys() - BROADER
  # What a resolved config may be without has said what that means.
  for path in KEYS.keys() - BROADER - config_lib.leaves(resolved).keys():
    assert KEYS[path].unset


@each([key for key in EVERY if key.path not in BROADER])
def test_unset_means_unset_and_all_else_is_set(key: Key):
  resolved = config_lib.leaves(config_lib.resolve(config_lib.base()))
  if not key.path.endswith(('.b1', '.b2')):  # Adam has some of its own.
    assert (resolved.get(key.path) is None) == bool(key.unset)


@each([key for key in EVERY if key.broader])
def test_a_broader_key_sets_it_and_its_own_name_wins(key: Key):
  one, other = {
    int: (3, 5),
    float: (0.25, 0.5),
    str: key.kind.names[:2] or ('sgd', 'lion'),
  }[key.kind.type]

  def value(**overrides):
    config = config_lib.resolve(config_lib.base(**overrides))
    return config_lib.leaves(config)[key.path]

  for name in key.broader:
    assert value(**{name: one}) == one
    assert value(**{name: one, key.short: other}) == other


def test_every_network_and_role_has_its_prefix_and_its_bits():
  for prefixes in (NETWORKS.values(), ROLES.values()):
    assert len(set(prefixes)) == len(prefixes)
  for network, n in NETWORKS.items():
    for role, r in ROLES.items():
      assert path_of(f'{n}_{r}_bits') == f'{network}.bits.{role}'
      assert KEYS[f'{network}.bits.{role}'].quantizer in KEYS


def test_a_wrong_name_is_answered_with_the_nearest():
  with pytest.raises(UserError, match="'g_nrom'; did you mean 'g_norm'"):
    path_of('g_nrom')
  with pytest.raises(UserError, match='is a group; its keys are logging.ch'):
    path_of('logging')


@each([key for key in EVERY if 'variant' in key.only_with])
def test_a_variant_takes_the_keys_that_are_said_to_be_for_it(key):
  # `runs.variants` gives a variant those of them that its function names.
  for name in key.only_with['variant']:
    taken = inspect.signature(getattr(variants, name)).parameters
    assert key.short in taken, name
