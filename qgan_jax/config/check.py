"""What a resolved config may hold: checked before anything is compiled."""

from collections.abc import Collection
import math
from typing import Any

from ml_collections import ConfigDict

from qgan_jax import models
from qgan_jax.config.key import Key
from qgan_jax.config.keys import BROADER, KEYS, NETWORKS
from qgan_jax.config.kinds import widths
from qgan_jax.config.resolution import leaves
from qgan_jax.errors import did_you_mean, UserError
from qgan_jax.precision import rules
from qgan_jax.training import optimizers
from qgan_jax.variants import CLASSES, FROM_IMAGES, losses, UNPAIRED


def validate(
  config: ConfigDict, networks: Collection[str] | None = None
) -> None:
  """Checks a resolved config, one key at a time and then together.

  Args:
    config: what `config.resolve` returns.
    networks: names that its rules may speak of; those of its variant if None.

  Raises:
    UserError: a value is not allowed; the message names the key, the short
      names that set it, the value and what is allowed.
  """
  values = leaves(config)
  keys = [key for path, key in KEYS.items() if path not in BROADER]
  # Whether bits are allowed is asked of quantizers that exist.
  for key in sorted(keys, key=lambda key: bool(key.quantizer)):
    _check(key, values)
  for network in NETWORKS:
    _check_network(config, network)
  if not config.model.name.startswith(f'{models.GIVEN}:'):
    for role in CLASSES[config.variant].values():
      known = models.attributes(config.model.name, role, {'attention': True})
      if config.model.attention and not known:
        raise UserError(
          f'attention=true does nothing with model={config.model.name}, whose '
          f'{role} has no such attribute; leave it out, or say model=resnet'
        )
    _check_pairs(config)
  _check_precision(config, networks or CLASSES[config.variant])
  _check_together(config)


def _check(key: Key, values: dict[str, Any]) -> None:
  """Refuses a value that its key may not hold."""
  value = values.get(key.path)
  if value is None and key.unset:
    return
  kind = widths(values[key.quantizer]) if key.quantizer else key.kind
  if not kind.accepts(value):
    unset = f', or unset for {key.unset}' if key.unset else ''
    hint = did_you_mean(str(value), kind.names)
    raise UserError(
      f'{key.path}={value!r} ({_set_by(key)}) is not allowed: it takes '
      f'{kind.allowed}{unset}{hint and f"; {hint}"}'
    )


def _set_by(key: Key) -> str:
  """The keys of a config string that decide about a key."""
  return f'set by {" or ".join([*key.broader, key.short or key.path])}'


def _check_network(root: ConfigDict, network: str) -> None:
  config = root[network]
  try:
    optimizers.make_optimizer(
      config.optimizer, config.learning_rate, **config.optimizer_kwargs
    )
  except UserError as error:
    where = _set_by(KEYS[f'{network}.optimizer'])
    raise UserError(f'{network}.optimizer ({where}): {error}') from None


def _check_pairs(config: ConfigDict) -> None:
  """Whether variant, networks and data go from images to images, or none."""
  variant, model, data = config.variant, config.model.name, config.data
  from_images = variant in FROM_IMAGES
  if model in models.NAMES and (model in models.FROM_IMAGES) != from_images:
    others = [
      name
      for name in models.NAMES
      if (name in models.FROM_IMAGES) == from_images
    ]
    taken = 'images' if from_images else 'latents'
    raise UserError(
      f'variant={variant} makes images of {taken}, and model={model} of '
      f'something else; say model={" or ".join(others)}'
    )
  given = {
    key: data[key] for key in ('pairs', 'domains') if data[key] is not None
  }
  if len(given) == 2:
    raise UserError(
      f'pairs={data.pairs} and domains={data.domains} are two ways to read '
      'folders; say one of them'
    )
  wanted = 'pairs=A/B or domains=A/B' if variant in UNPAIRED else 'pairs=A/B'
  if from_images and not given:
    raise UserError(
      f'variant={variant} learns from two folders of pictures; say {wanted}, '
      'their names in the folder of the data'
    )
  for key, folders in given.items():
    takers = UNPAIRED if key == 'domains' else FROM_IMAGES
    if variant not in takers:
      raise UserError(
        f'{key}={folders} does nothing with variant={variant}; say variant='
        f'{" or ".join(takers)}, or leave it out'
      )
    if not data.source.startswith('folder:'):
      raise UserError(
        f'{key}={folders} are folders of pictures, and source={data.source} '
        'has none; say source=folder,dir=PATH'
      )
    if data.conditional:
      raise UserError(
        f'conditional=true does nothing with {key}, whose folders are no '
        'classes; leave it out'
      )


def _check_precision(config: ConfigDict, networks: Collection[str]) -> None:
  p = config.precision
  # Whether each rule catches a layer is known once there are networks.
  parsed = rules.parse_rules(p.rules, networks)
  named = (p.quantizer, *(rule.settings.get('quantizer') for rule in parsed))
  if 'grid' in named and p.anneal_steps:
    raise UserError(
      f'precision.anneal_steps={p.anneal_steps} is of bit widths, and '
      'quantizer=grid has an exponent; choose another quantizer, such as '
      'power_of_two_scale'
    )
  sparse = any(config[network].sparsity for network in NETWORKS)
  for key in ('prune_start', 'prune_steps'):
    if p[key] and not sparse:
      raise UserError(
        f'precision.{key}={p[key]} does nothing without pruning; say '
        'sparsity=0.5, or leave it out'
      )


def periods(config: ConfigDict) -> dict[str, int]:
  """After how many steps something is done, by path; all steps at the end."""
  return {
    path: value
    for path, value in leaves(config).items()
    if path == 'steps' or (path.endswith('_every') and value is not None)
  }


def _check_together(config: ConfigDict) -> None:
  loss, scores = config.loss, config.scores
  each = config.steps_per_call
  for path, period in periods(config).items():
    if each is not None and period % each:
      common = math.gcd(*periods(config).values())
      raise UserError(
        f'steps_per_call={each} does not divide {path}={period}, and nothing '
        f'can be done inside a call; say a divisor of {common}, which divides '
        'steps and all periods, or change them'
      )
  if loss.penalty == 'none' and loss.penalty_weight:
    raise UserError(
      f'penalty_weight={loss.penalty_weight} does nothing with penalty=none; '
      f'choose a penalty ({", ".join(losses.PENALTIES)}) or leave it out'
    )
  images = loss.penalty_fraction * config.batch_size
  if config.variant != 'vae' and loss.penalty != 'none' and images < 1:
    raise UserError(
      f'penalty_fraction={loss.penalty_fraction} of batch_size='
      f'{config.batch_size} is less than one image; give a fraction of at '
      f'least {1 / config.batch_size} or a larger batch'
    )
  if config.variant == 'vae_gan' and losses.LOSSES[loss.name].relativistic:
    raise UserError(
      f'loss={loss.name} compares pairs of an image and a fake, and '
      'variant=vae_gan has no pairs; choose another loss'
    )
  if config.variant != 'gan' and loss.augment != 'none':
    raise UserError(
      f'augment={loss.augment} does nothing with variant={config.variant}; '
      'leave it out'
    )
  if loss.augment == 'ada' and loss.name not in losses.SIGNED:
    raise UserError(
      f'augment=ada follows the signs of logits, which mean nothing with loss='
      f'{loss.name}; take one of {", ".join(losses.SIGNED)}, or '
      'augment=diffaugment'
    )
  if scores.extractor == 'inception' and scores.inception_weights is None:
    raise UserError(
      'scores.extractor=inception needs scores.inception_weights=FILE, the '
      'pt_inception-2015-12-05 weights'
    )
