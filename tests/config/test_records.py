"""Configs as runs keep them: written, read back, and compared."""

import json
import math

from ml_collections import config_dict
import pytest

from qgan_jax import config as config_lib
from qgan_jax.config.keys import BROADER, KEYS, REMOVED
from qgan_jax.errors import UserError

FIRST = {'experiment': 'mnist'}


def resolved(arg=None):
  return config_lib.resolve(config_lib.override(config_lib.base(**FIRST), arg))


def read(flat):
  """What `from_json` makes of values by path."""
  nested = {}
  for path, value in flat.items():
    *groups, name = path.split('.')
    inner = nested
    for group in groups:
      inner = inner.setdefault(group, {})
    inner[name] = value
  return config_lib.from_json(json.dumps(nested))


def test_what_json_cannot_hold_is_refused():
  config = config_lib.base()
  config.ema.decay = math.nan
  with pytest.raises(ValueError, match='JSON'):
    config_lib.to_json(config_lib.resolve(config))
  with pytest.raises(TypeError):
    config_lib.to_json(config_dict.ConfigDict({'a': {1, 2}}))
  assert json.loads(config_lib.to_json(resolved()))['steps'] == 16_000


def test_keys_that_are_no_more_are_left_out_where_they_had_their_default():
  config = resolved('bits=4')
  values = config_lib.leaves(config)
  assert read(values | REMOVED) == config
  for path in REMOVED:
    with pytest.raises(UserError, match=f'{path}=.* this version has no such'):
      read(values | {path: 'another'})
  with pytest.raises(UserError, match='data.sauce=3'):
    read(values | {'data.sauce': 3})


# These two follow from `ranges` being unset, and a record has it set.
_NOT_NEW = {f'{n}.activation_quantizer' for n in config_lib.NETWORKS}


@pytest.mark.parametrize(
  'path', sorted(KEYS.keys() - BROADER - FIRST.keys() - _NOT_NEW)
)
def test_a_key_that_is_new_has_its_default(path):
  config = resolved()
  values = config_lib.leaves(config)
  values.pop(path, None)
  assert config_lib.diff(config, read(values)) == []


def test_a_key_with_another_name_is_read_under_the_old_one():
  # Once, both networks had the same quantizer of activations.
  config = resolved('bits=4,activation_quantizer=pact')
  values = config_lib.leaves(config)
  for network in config_lib.NETWORKS:
    del values[f'{network}.activation_quantizer']
  values['precision.activation_quantizer'] = 'pact'
  assert read(values) == config


@pytest.mark.parametrize('text', ['', '[]', '{}', '3', '{"seed": 1}', 'null'])
def test_what_is_no_config_is_refused(text):
  with pytest.raises(ValueError):
    config_lib.from_json(text)
  with pytest.raises(TypeError):
    read(FIRST | {'steps': 'many'})


def test_diff_says_what_changed():
  old, new = resolved('bits=8'), resolved('g_w_bits=4,optimizer=sgd')
  assert config_lib.diff(old, old) == []
  assert sorted(config_lib.diff(old, new)) == [
    "discriminator.optimizer: 'adam' -> 'sgd'",
    'discriminator.optimizer_kwargs.b1: 0.5 -> absent',
    'discriminator.optimizer_kwargs.b2: 0.99 -> absent',
    'generator.bits.weights: 8 -> 4',
    "generator.optimizer: 'adam' -> 'sgd'",
    'generator.optimizer_kwargs.b1: 0.5 -> absent',
    'generator.optimizer_kwargs.b2: 0.99 -> absent',
  ]
