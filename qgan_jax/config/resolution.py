"""The configuration of an experiment: defaults, overrides, what follows.

An experiment file builds on `base`, puts the config string on top with
`override`, and leaves out what follows from the rest. `resolve` fills that in
once every flag is parsed, so that a value follows whatever it depends on:

  bits                 of both networks, weights and activations
  g_bits, d_bits       of one network
  w_bits, a_bits       of one role, weights or activations
  g_w_bits, …          generator.bits.weights, … of one role in one network

The most specific wins. `g_bits` and `a_bits` are equally specific: where they
disagree about the generator's activations, `g_a_bits` has to be given as well.
32 is float. With `quantizer=grid`, `bits` is the exponent b of
Q(x) = round(x / 2^b) · 2^b and sets weights alone; activations have 8 bits
unless `a_bits` is given. A quantizer whose definition fixes its width (ternary,
xnor…) has that width unless bits are given, and takes no other.

Activations learn their ranges, unless `activation_quantizer` names a quantizer
that does not, or `ranges` is given: then they are `affine` with such ranges.
D's learn an offset too (`lsq_plus`), for leaky ReLUs; G's (`lsq`) have none, so
that G runs in integers.

Every other key that networks share (`learning_rate`, `norm`…) sets all of them,
and with a prefix (`g_learning_rate`) one.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict, ConfigDict, FrozenConfigDict

from qgan_jax import quantizers
from qgan_jax.config import grammar
from qgan_jax.config.key import Key
from qgan_jax.config.keys import (
  BROADER,
  DEFAULT_BITS,
  KEYS,
  NETWORKS,
  OPTIMIZER_KWARGS,
  path_of,
  ROLES,
  SHARED,
)
from qgan_jax.config.kinds import PATH, size_of
from qgan_jax.errors import expand_home, UserError
from qgan_jax.precision.spec import GRID_NEEDS_BITS
from qgan_jax.variants import losses


def base(**overrides: Any) -> ConfigDict:
  """The configuration that every experiment starts from.

  Args:
    **overrides: the experiment's own defaults, by short name or dotted path.

  Returns:
    A locked ConfigDict. What is None in it follows from the rest in `resolve`.
  """
  nested: dict[str, Any] = {}
  for path, key in KEYS.items():
    *groups, name = path.split('.')
    inner = nested
    for group in groups:
      inner = inner.setdefault(group, {})
    unset = config_dict.placeholder(key.kind.type)
    inner[name] = unset if key.default is None else key.default
  config = ConfigDict(nested)
  values = {path_of(name): value for name, value in overrides.items()}
  side = values.get('data.image_size')
  if type(side) is int:
    values['data.image_size'] = str(side)
  config.update_from_flattened_dict(values)
  return config.lock()


def override(config: ConfigDict, arg: str | None) -> ConfigDict:
  """Puts a config string on top of an experiment's defaults.

  Args:
    config: what `base` returned; changed in place.
    arg: the config string, such as 'bits=8,seed=1'; None or '' for none.

  Returns:
    The same config.

  Raises:
    UserError: the string is malformed, a key unknown or given twice, or a
      value of the wrong type.
  """
  names: dict[str, str] = {}
  path = ''
  for name, text in grammar.parse(arg).items():
    try:
      path = path_of(name)
    except UserError as error:
      if path and KEYS[path].kind.type is str:
        raise UserError(
          f'{error} (if it is a part of {names[path]}: a value that holds a '
          f'comma is given as --config.{path}=VALUE)'
        ) from None
      raise
    if path in names:
      raise UserError(
        f'config string {arg!r} sets {path} twice, as {names[path]!r} and '
        f'{name!r}; keep one of them'
      )
    names[path] = name
    value = grammar.convert(name, text, KEYS[path].kind.type)
    config.update_from_flattened_dict({path: value})
  return config


def resolve(config: ConfigDict) -> FrozenConfigDict:
  """Sets what depends on other keys, and freezes the result.

  Args:
    config: an experiment's config with every override in it.

  Returns:
    A frozen copy without the keys that stand for all networks: each network
    has its own values, and nothing depends on anything any more.

  Raises:
    UserError: the bit widths contradict each other, or something that has no
      default is missing.
  """
  c = config.to_dict()
  for path in (path for path, key in KEYS.items() if key.kind is PATH):
    group, _, name = path.rpartition('.')
    section = c[group] if group else c
    section[name] = section[name] and expand_home(section[name])
  shared = {
    name: c.pop(name) for name in {path.partition('.')[0] for path in BROADER}
  }
  data, loss, precision = c['data'], c['loss'], c['precision']
  data['source'] = _source(c['experiment'], data['source'], data['dir'])
  # A number where it is one, as in the records of earlier versions.
  sides = size_of(data['image_size'])
  if len({*sides}) == 1:
    data['image_size'] = sides[0]
  if loss['penalty_weight'] is None:
    # A penalty that does not exist is refused by `check.validate`.
    loss['penalty_weight'] = losses.PENALTY_WEIGHTS.get(loss['penalty'], 0.0)
  if precision['start_step'] is None:
    # Few bits learn much more slowly, and what is learned in float stays.
    precision['start_step'] = 0 if c['init_from'] else c['steps'] // 2
  if c['logging']['sample_every'] is None:
    # Calls of many steps divide it, as they do `log_every`.
    c['logging']['sample_every'] = max(1, c['steps'] // 2000) * 100
  if precision['ranges'] is None:
    precision['ranges'] = 'moving'
  elif shared['activation_quantizer'] is None:
    # Quantizers that learn their ranges have no use for given ones.
    shared['activation_quantizer'] = 'affine'
  grid = precision['quantizer'] == 'grid'
  for name in NETWORKS:
    network = c[name]
    for key in SHARED:
      if '.' not in key.path:
        network[key.path] = _first(
          network[key.path], shared[key.path], key.by_network.get(name)
        )
    network['optimizer'] = network['optimizer'].removeprefix('optax.')
    network['optimizer_kwargs'] = (
      OPTIMIZER_KWARGS.get(network['optimizer'], {})
      | _given(shared['optimizer_kwargs'])
      | _given(network['optimizer_kwargs'])
    )
    quantizer = {
      'weights': precision['quantizer'],
      'activations': network['activation_quantizer'],
    }
    network['bits'] = {
      role: _bits(
        KEYS[f'{name}.bits.{role}'],
        network['bits'][role],
        shared,
        quantizer=quantizer[role],
        grid=grid,
      )
      for role in ROLES
    }
  return FrozenConfigDict(c)


def _first(*values: Any) -> Any:
  return next((value for value in values if value is not None), None)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in values.items() if value is not None}


def _source(experiment: str, source: str | None, folder: str | None) -> str:
  if source != 'folder':
    return _first(source, experiment)
  if folder is None:
    raise UserError(
      'which folder of images? Say dir=PATH, for example '
      f'--config={experiment}:dir=/path/to/images'
    )
  return f'folder:{folder}'


def _bits(
  key: Key,
  own: float | None,
  given: Mapping[str, float | None],
  *,
  quantizer: str,
  grid: bool,
) -> float:
  """The bits of a network's role: the most specific that is given."""
  network, _, role = key.path.split('.')
  everything, of_network, of_role = key.broader
  bits = own
  # The exponent of a grid says nothing about activations.
  if grid and role == 'activations':
    given = {**given, everything: None, of_network: None}
  if bits is None:
    a, b = given[of_network], given[of_role]
    if None not in (a, b) and a != b:
      raise UserError(
        f'{of_network}={a:g} and {of_role}={b:g} disagree about the '
        f"{network}'s {role}; say {key.short}=… as well"
      )
    bits = _first(a, b, given[everything])
  if bits is None and grid and role == 'weights':
    raise UserError(GRID_NEEDS_BITS)
  bits = _first(bits, _fixed_bits(quantizer), DEFAULT_BITS)
  return int(bits) if float(bits).is_integer() else bits


def _fixed_bits(quantizer: str) -> int | None:
  """The bits that a quantizer's definition fixes, if it does.

  None for an unknown quantizer as well, which `check.validate` refuses.
  """
  if quantizer not in quantizers.NAMES:
    return None
  return quantizers.by_name(quantizer).fixed_bits


def leaves(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
  """Every value of a config by its dotted path, in order."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict | Mapping):
      flat |= {f'{key}.{rest}': leaf for rest, leaf in leaves(value).items()}
    else:
      flat[key] = value
  return flat
