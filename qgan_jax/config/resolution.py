"""The configuration of an experiment: defaults, overrides, what follows.

An experiment file builds on `base`, puts the config string on top with
`override`, and leaves out what follows from the rest. `resolve` fills that in
once every flag is parsed, so that a value follows whatever it depends on:

  bits                 of both networks, weights and activations
  g_bits, d_bits       of one network
  w_bits, a_bits       of one role, weights or activations
  g_w_bits, …          generator.bits.weights, … of one role in one network

The most specific wins. `g_bits` and `a_bits` are equally specific: where they
disagree about the generator's activations, `g_a_bits` has to say. 32 is float.
With `quantizer=grid`, `bits` is the exponent b of Q(x) = round(x / 2^b) · 2^b
and speaks of weights alone; activations have 8 bits or what `a_bits` says. A
quantizer whose definition fixes its width (ternary, xnor…) has that width where
nothing is said, and takes no other.

Activations learn their ranges, unless `activation_quantizer` says otherwise, or
`ranges` how `affine` ones are found. D's learn an offset too (`lsq_plus`), for
leaky ReLUs; G's (`lsq`) have none, so that G runs in integers.

Every other key that two networks share (`learning_rate`, `norm`…) stands for
both, and `g_learning_rate` or `d_learning_rate` for one.
"""

from collections.abc import Mapping
import json
from typing import Any

from ml_collections import config_dict, ConfigDict, FrozenConfigDict

from qgan_jax.config import grammar
from qgan_jax.config.check import fixed_bits
from qgan_jax.config.grammar import parse, SHARED
from qgan_jax.errors import UserError

NETWORKS = ('generator', 'discriminator')
ROLES = ('weights', 'activations')
_LEVELS = ('bits', 'g_bits', 'd_bits', 'w_bits', 'a_bits')
_BITS = 8
_NORM = {'generator': 'group', 'discriminator': 'none'}
_LEARNED_RANGES = {'generator': 'lsq', 'discriminator': 'lsq_plus'}
# Optax's b1 = 0.9 makes GANs oscillate: Radford et al., 1511.06434, section 4.
_OPTIMIZER_KWARGS = {'adam': {'b1': 0.5, 'b2': 0.99}}
# λ of Gulrajani et al., 1704.00028; γ of Mescheder et al., 1801.04406.
_PENALTY_WEIGHT = {'gradient_penalty': 10.0, 'r1': 1.0}


def base(**overrides: Any) -> ConfigDict:
  """The configuration that every experiment starts from.

  Args:
    **overrides: the experiment's own defaults, by short name or dotted path.

  Returns:
    A locked ConfigDict. What is None in it follows from the rest in `resolve`.
  """
  unset = config_dict.placeholder

  def kwargs() -> dict[str, Any]:
    names = ('b1', 'b2', 'momentum', 'weight_decay')
    return {name: unset(float) for name in names}

  def network(**own: Any) -> dict[str, Any]:
    return own | {
      'channels': unset(int),
      'norm': unset(str),
      'activation_quantizer': unset(str),
      'optimizer': unset(str),
      'optimizer_kwargs': kwargs(),
      'learning_rate': unset(float),
      'sparsity': unset(float),
      'bits': {'weights': unset(float), 'activations': unset(int)},
    }

  config = ConfigDict(
    {
      'experiment': 'unnamed',
      'seed': 0,
      'steps': 16_000,
      'batch_size': 32,
      'dtype': 'float32',
      # For both networks, where generator and discriminator do not say.
      'bits': unset(float),
      'g_bits': unset(float),
      'd_bits': unset(float),
      'w_bits': unset(float),
      'a_bits': unset(int),
      'channels': 32,
      'norm': unset(str),
      'activation_quantizer': unset(str),
      'optimizer': 'adam',
      'optimizer_kwargs': kwargs(),
      'learning_rate': 1e-3,
      'learning_rate_decay': 'none',  # Of both networks, over all steps.
      'sparsity': 0.0,  # Share of the weights that is pruned.
      'init_from': unset(str),  # A run's folder: start from its networks.
      'data': {
        'source': unset(str),  # The experiment's name.
        'dir': unset(str),
        'standin': True,
        'image_size': 28,
        'channels': unset(int),
        'conditional': False,
      },
      'model': {'name': 'dcgan'},
      'generator': network(latent_dim=64),
      'discriminator': network(spectral_norm=False, steps=1),
      'precision': {
        'quantizer': 'lsq',
        'per_channel': True,
        'ranges': unset(str),  # Of activations that learn none: 'moving'.
        'momentum': 0.99,
        'input_bits': 8,
        'rules': unset(str),  # See `qgan_jax.precision.rules`.
        'gradient_quantizer': 'dorefa_gradient',
        'gradient_bits': 32,
        'learning_rate': 1e-3,  # Of learned scales, relative to themselves.
        'start_step': unset(int),  # Half of the steps, 0 with init_from.
        'anneal_steps': 0,  # Steps in which bits fall from anneal_from.
        'anneal_from': 8,
        'alternate_steps': 0,  # Quantized and float in turn, so many each.
        'prune_start': 0,
        'prune_steps': 0,  # Steps in which the sparsity rises.
      },
      'loss': {
        'name': 'nonsaturating',
        'penalty': 'r1',
        'penalty_weight': unset(float),
        'penalty_fraction': 0.125,
      },
      'ema': {'decay': 0.999},
      'logging': {
        'log_every': 100,
        'sample_every': 1000,
        'eval_every': 1000,
        'checkpoint_every': 1000,
        'eval_samples': 2000,
        'diagnose': True,  # What quantization does, at the end.
        'diagnose_every': unset(int),  # And every so many steps.
      },
      'scores': {
        'samples': 10_000,
        'extractor': 'classifier',
        'inception_weights': unset(str),
      },
    }
  )
  paths = leaves(config)
  config.update_from_flattened_dict(
    {grammar.path_of(key, paths): value for key, value in overrides.items()}
  )
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
  paths = leaves(config)
  keys: dict[str, str] = {}
  for key, text in parse(arg).items():
    path = grammar.path_of(key, paths)
    if path in keys:
      raise UserError(
        f'config string {arg!r} sets {path} twice, as {keys[path]!r} and '
        f'{key!r}; keep one of them'
      )
    keys[path] = key
    value = grammar.convert(key, text, kind_of(config, path))
    config.update_from_flattened_dict({path: value})
  return config


def kind_of(config: ConfigDict, path: str) -> type:
  """The type of a config's key, set or unset."""
  group, _, name = path.rpartition('.')
  return (config[group] if group else config).get_type(name)


def resolve(config: ConfigDict) -> FrozenConfigDict:
  """Fills in what follows from the rest, and freezes the result.

  Args:
    config: an experiment's config with every override in it.

  Returns:
    A frozen copy without the keys that stand for both networks: each network
    has its own values, and nothing depends on anything any more.

  Raises:
    UserError: the bit widths contradict each other, or something that has no
      default is missing.
  """
  c = config.to_dict()
  levels = {name: c.pop(name) for name in _LEVELS}
  shared = {
    name: c.pop(name)
    for name in {path.partition('.')[0] for path in SHARED.values()}
  }
  data, loss = c['data'], c['loss']
  data['source'] = _source(c['experiment'], data['source'], data['dir'])
  if loss['penalty_weight'] is None:
    loss['penalty_weight'] = _PENALTY_WEIGHT.get(loss['penalty'], 0.0)
  precision = c['precision']
  if precision['start_step'] is None:
    # Few bits learn much more slowly, and what is learned in float stays.
    precision['start_step'] = 0 if c['init_from'] else c['steps'] // 2
  activations = _LEARNED_RANGES
  if precision['ranges'] is not None:
    activations = dict.fromkeys(NETWORKS, 'affine')
  precision['ranges'] = _first(precision['ranges'], 'moving')
  defaults = {'norm': _NORM, 'activation_quantizer': activations}
  for name in NETWORKS:
    network = c[name]
    for key in shared.keys() - {'optimizer_kwargs'}:
      default = defaults[key][name] if key in defaults else None
      network[key] = _first(network[key], shared[key], default)
    network['optimizer'] = network['optimizer'].removeprefix('optax.')
    network['optimizer_kwargs'] = (
      _OPTIMIZER_KWARGS.get(network['optimizer'], {})
      | _given(shared['optimizer_kwargs'])
      | _given(network['optimizer_kwargs'])
    )
    network['bits'] = {
      role: _bits(
        levels | {f'{name[0]}_{role[0]}_bits': network['bits'][role]},
        name,
        role,
        quantizer=(
          precision['quantizer']
          if role == 'weights'
          else network['activation_quantizer']
        ),
        grid=precision['quantizer'] == 'grid',
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
      f'--config=experiments/{experiment}.py:dir=/path/to/images'
    )
  return f'folder:{folder}'


def _bits(
  given: Mapping[str, float | None],
  network: str,
  role: str,
  *,
  quantizer: str,
  grid: bool,
) -> float:
  """The bits of a network's role: the most specific that is given."""
  n, r = network[0], role[0]
  # The exponent of a grid says nothing about activations.
  both_roles = not (grid and role == 'activations')
  of_network = given[f'{n}_bits'] if both_roles else None
  of_role = given[f'{r}_bits']
  bits = given[f'{n}_{r}_bits']
  if bits is None:
    if None not in (of_network, of_role) and of_network != of_role:
      raise UserError(
        f'{n}_bits={of_network:g} and {r}_bits={of_role:g} disagree about the '
        f"{network}'s {role}; say {n}_{r}_bits=… as well"
      )
    bits = _first(of_network, of_role, given['bits'] if both_roles else None)
  if bits is None and grid and role == 'weights':
    raise UserError(
      'quantizer=grid needs bits=b, the exponent of its step 2^b: -6 is a step '
      'of 1/64, and 8 one of 256, on which every weight is 0'
    )
  bits = _first(bits, fixed_bits(quantizer), _BITS)
  return int(bits) if float(bits).is_integer() else bits


def leaves(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
  """Every value of a config by its dotted path, in order."""
  flat: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict | Mapping):
      flat |= {f'{key}.{rest}': leaf for rest, leaf in leaves(value).items()}
    else:
      flat[key] = value
  return flat


def to_json(config: ConfigDict) -> str:
  """The config as JSON: nothing is dropped, what cannot be kept is refused.

  Raises:
    TypeError: a value that JSON cannot hold.
    ValueError: a value that is not finite.
  """
  return json.dumps(config.to_dict(), indent=2, allow_nan=False)


def from_json(text: str) -> FrozenConfigDict:
  """The config that `to_json` wrote, of earlier runs as well."""
  record = json.loads(text)
  # Once, both networks had the same.
  shared = record['precision'].pop('activation_quantizer', None)
  if shared is not None:
    for name in NETWORKS:
      record[name]['activation_quantizer'] = shared
  return FrozenConfigDict(record)


def diff(old: ConfigDict, new: ConfigDict) -> list[str]:
  """What differs between two configs.

  Returns:
    Lines such as 'generator.bits.weights: 8 -> 4'; none where they are equal.
  """
  before, after = leaves(old), leaves(new)
  lines = []
  for path in before | after:
    values = [
      repr(flat[path]) if path in flat else 'absent' for flat in (before, after)
    ]
    if values[0] != values[1]:
      lines.append(f'{path}: {" -> ".join(values)}')
  return lines
