"""What a resolved config may hold: checked before anything is compiled."""

from collections.abc import Callable
import math
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from qgan_jax import quantizers
from qgan_jax.config.grammar import did_you_mean, SHARED, SHORT_NAMES
from qgan_jax.errors import UserError
from qgan_jax.precision import rules
from qgan_jax.precision.spec import allowed_bits, takes_bits
from qgan_jax.training import optimizers
from qgan_jax.variants import losses


class Rule(NamedTuple):
  """What one key may hold.

  Attributes:
    allowed: the same for a reader.
    accepts: value → whether it may stand.
    names: the choices, where there are some.
  """

  allowed: str
  accepts: Callable[[Any], bool]
  names: tuple[str, ...] = ()


def _is_number(value: Any) -> bool:
  # A bool is an int in Python, and NaN compares as nothing.
  return type(value) in (int, float) and math.isfinite(value)


def _whole(least: int, most: float = math.inf) -> Rule:
  upper = f' to {most}' if most < math.inf else ' up'
  return Rule(
    f'a whole number from {least}{upper}',
    lambda x: type(x) is int and least <= x <= most,
  )


def _choice(*names: str) -> Rule:
  return Rule(f'one of {", ".join(names)}', lambda x: x in names, names)


_BITS = Rule(
  'a whole number from 1 to 16, or 32 for float',
  lambda x: type(x) is int and (1 <= x <= 16 or x == 32),
)


def _widths(quantizer: str) -> Rule:
  """The bits that a quantizer can have."""
  return Rule(allowed_bits(quantizer), lambda x: takes_bits(quantizer, x))


# From 32 on a tensor is left in float; at -32 nothing above 2^-9 is rounded.
_EXPONENT = Rule(
  'the exponent of the grid step 2^b, a number from -32 to 32 (32 is float)',
  lambda x: _is_number(x) and -32 <= x <= 32,
)
_POSITIVE = Rule('a number above 0', lambda x: _is_number(x) and x > 0)
_NOT_NEGATIVE = Rule('a number from 0 up', lambda x: _is_number(x) and x >= 0)
_SHARE = Rule(
  'a number above 0 and up to 1', lambda x: _is_number(x) and 0 < x <= 1
)
_DECAY = Rule(
  'a number from 0 up to, but not, 1', lambda x: _is_number(x) and 0 <= x < 1
)
_FLAG = Rule('true or false', lambda x: type(x) is bool)
_TEXT = Rule('a text', lambda x: type(x) is str and bool(x))
_TEXT_OR_NONE = Rule('a path', lambda x: x is None or _TEXT.accepts(x))
_NORM = _choice('group', 'batch', 'none')
_ACTIVATIONS = _choice(*quantizers.ACTIVATIONS)
_OPTIMIZER = Rule(  # Looked up with its arguments, further down.
  'momentum, or an optimizer of Optax', _TEXT.accepts
)

RULES = {
  'experiment': Rule(
    'a name of letters, digits, dots, dashes and underscores',
    lambda x: type(x) is str and bool(re.fullmatch(r'\w[\w.-]*', x, re.ASCII)),
  ),
  'seed': _whole(0, 2**32 - 1),
  'steps': _whole(1),
  'batch_size': _whole(1),
  'dtype': _choice('float32', 'bfloat16'),
  'learning_rate_decay': _choice(*optimizers.DECAYS),
  'data.source': _TEXT,
  'data.dir': _TEXT_OR_NONE,
  'data.standin': _FLAG,
  'data.image_size': Rule(
    'one of 28, 32, 64', lambda x: type(x) is int and x in (28, 32, 64)
  ),
  'data.channels': Rule(
    '1 (grey), 3 (RGB), or unset for what the images have',
    lambda x: x is None or (type(x) is int and x in (1, 3)),
  ),
  'data.conditional': _FLAG,
  'model.name': _choice('dcgan'),
  'generator.channels': _whole(1),
  'generator.latent_dim': _whole(1),
  'generator.norm': _NORM,
  'generator.activation_quantizer': _ACTIVATIONS,
  'generator.optimizer': _OPTIMIZER,
  'generator.learning_rate': _POSITIVE,
  'generator.sparsity': _DECAY,
  'discriminator.channels': _whole(1),
  'discriminator.norm': _NORM,
  'discriminator.activation_quantizer': _ACTIVATIONS,
  'discriminator.spectral_norm': _FLAG,
  'discriminator.optimizer': _OPTIMIZER,
  'discriminator.learning_rate': _POSITIVE,
  'discriminator.sparsity': _DECAY,
  'discriminator.steps': _whole(1),
  'precision.quantizer': _choice(*quantizers.WEIGHTS),
  'precision.per_channel': _FLAG,
  'precision.ranges': _choice(*rules.RANGES),
  'precision.momentum': _DECAY,
  'precision.input_bits': _BITS,
  'precision.rules': Rule('rules', lambda x: x is None or _TEXT.accepts(x)),
  'precision.gradient_quantizer': _choice(*quantizers.GRADIENTS),
  'precision.learning_rate': _NOT_NEGATIVE,
  'precision.start_step': _whole(0),
  'precision.anneal_steps': _whole(0),
  'precision.anneal_from': _whole(1, 16),
  'precision.alternate_steps': _whole(0),
  'precision.prune_start': _whole(0),
  'precision.prune_steps': _whole(0),
  'init_from': _TEXT_OR_NONE,
  'loss.name': _choice(*losses.LOSSES),
  'loss.penalty': _choice('none', *losses.PENALTIES),
  'loss.penalty_weight': _NOT_NEGATIVE,
  'loss.penalty_fraction': _SHARE,
  'ema.decay': _DECAY,
  'logging.log_every': _whole(1),
  'logging.sample_every': _whole(1),
  'logging.eval_every': _whole(1),
  'logging.checkpoint_every': _whole(1),
  'logging.eval_samples': _whole(2),
  'logging.diagnose': _FLAG,
  'logging.diagnose_every': Rule(
    'a whole number from 1 up, or unset for the end alone',
    lambda x: x is None or (type(x) is int and x >= 1),
  ),
  'scores.samples': _whole(2),
  'scores.extractor': _choice('classifier', 'inception'),
  'scores.inception_weights': _TEXT_OR_NONE,
}
KWARGS_RULES = {
  'b1': _DECAY,
  'b2': _DECAY,
  'momentum': _DECAY,
  'weight_decay': _NOT_NEGATIVE,
}


def fixed_bits(quantizer: str) -> int | None:
  """The bits that a quantizer's definition fixes, if it does.

  None of a name that is no quantizer's, too: `validate` refuses it.
  """
  known = quantizer in quantizers.NAMES
  return quantizers.by_name(quantizer).fixed_bits if known else None


def validate(config: ConfigDict) -> None:
  """Checks a resolved config, one key at a time and then together.

  Args:
    config: what `config.resolve` returns.

  Raises:
    UserError: a value is not allowed; the message names the key, the short
      names that set it, the value and what is allowed.
  """
  # What the weights' bits mean depends on the quantizer, so it comes first.
  for path in ('precision.quantizer', *RULES):
    _check(config, path, RULES[path])
  grid = config.precision.quantizer == 'grid'
  for network in ('generator', 'discriminator'):
    names = (config.precision.quantizer, config[network].activation_quantizer)
    weights, activations = map(_widths, names)
    path = f'{network}.bits'
    _check(config, f'{path}.weights', _EXPONENT if grid else weights)
    _check(config, f'{path}.activations', activations)
    _check_network(config, network)
  gradients = _widths(config.precision.gradient_quantizer)
  _check(config, 'precision.gradient_bits', gradients)
  _check_precision(config)
  _check_together(config)


def _check(config: ConfigDict, path: str, rule: Rule) -> None:
  value: Any = config
  for key in path.split('.'):
    value = value[key]
  if not rule.accepts(value):
    hint = did_you_mean(str(value), rule.names)
    raise UserError(
      f'{path}={value!r} ({_set_by(path)}) is not allowed: it takes '
      f'{rule.allowed}{hint}'
    )


def _set_by(path: str) -> str:
  """The keys of a config string that decide about a path."""
  network, _, rest = path.partition('.')
  if rest.startswith('bits.'):
    n, role = network[0], rest.removeprefix('bits.')[0]
    names = ['bits', f'{n}_bits', f'{role}_bits', f'{n}_{role}_bits']
  else:
    shared = [name for name, tail in SHARED.items() if tail == rest]
    names = [name for name, tail in SHORT_NAMES.items() if tail == path]
    names = shared * (network in ('generator', 'discriminator')) + names
  return f'set by {" or ".join(names or [path])}'


def _check_network(root: ConfigDict, network: str) -> None:
  config = root[network]
  for key in config.optimizer_kwargs:
    _check(root, f'{network}.optimizer_kwargs.{key}', KWARGS_RULES[key])
  try:
    optimizers.make_optimizer(
      config.optimizer, config.learning_rate, **config.optimizer_kwargs
    )
  except UserError as error:
    where = _set_by(f'{network}.optimizer')
    raise UserError(f'{network}.optimizer ({where}): {error}') from None
  if config.norm == 'group' and config.channels % 8:
    raise UserError(
      f'{network}.channels={config.channels} with norm=group: give a multiple '
      'of 8, the size of a group, or another norm'
    )


def _check_precision(config: ConfigDict) -> None:
  p = config.precision
  rules.parse_rules(p.rules)  # What they catch, the networks will tell.
  if p.quantizer == 'grid' and p.anneal_steps:
    raise UserError(
      f'precision.anneal_steps={p.anneal_steps} is of bit widths, and '
      'quantizer=grid has an exponent; choose another quantizer, such as '
      'power_of_two_scale'
    )
  sparse = config.generator.sparsity or config.discriminator.sparsity
  for key in ('prune_start', 'prune_steps'):
    if p[key] and not sparse:
      raise UserError(
        f'precision.{key}={p[key]} does nothing without pruning; say '
        'sparsity=0.5, or leave it out'
      )


def _check_together(config: ConfigDict) -> None:
  loss, scores = config.loss, config.scores
  if loss.penalty == 'none' and loss.penalty_weight:
    raise UserError(
      f'penalty_weight={loss.penalty_weight} does nothing with penalty=none; '
      f'choose a penalty ({", ".join(losses.PENALTIES)}) or leave it out'
    )
  images = loss.penalty_fraction * config.batch_size
  if loss.penalty != 'none' and images < 1:
    raise UserError(
      f'loss.penalty_fraction={loss.penalty_fraction} of batch_size='
      f'{config.batch_size} is less than one image; give a fraction of at '
      f'least {1 / config.batch_size} or a larger batch'
    )
  if scores.extractor == 'inception' and scores.inception_weights is None:
    raise UserError(
      'scores.extractor=inception needs scores.inception_weights=FILE, the '
      'pt_inception-2015-12-05 weights'
    )
