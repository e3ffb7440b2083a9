"""The grammar of config strings, and the short names that they take.

`--config=experiments/mnist.py:bits=4,loss=hinge` hands everything after the
first colon to the experiment: `key=value` pairs between commas. A key is a
short name of the table below or any dotted path of the config
(`generator.channels=64`). Values are plain text, read by the type that the key
has; they hold no comma (use `--config.KEY=VALUE` for one that does).
"""

from collections.abc import Iterable, Mapping
import difflib
import math
from typing import Any

from qgan_jax.errors import UserError

# A key without a network's name stands for both networks.
SHARED = {
  'channels': 'channels',
  'norm': 'norm',
  'activation_quantizer': 'activation_quantizer',
  'optimizer': 'optimizer',
  'learning_rate': 'learning_rate',
  'sparsity': 'sparsity',
  'b1': 'optimizer_kwargs.b1',
  'b2': 'optimizer_kwargs.b2',
  'momentum': 'optimizer_kwargs.momentum',
  'weight_decay': 'optimizer_kwargs.weight_decay',
}

SHORT_NAMES = {
  'experiment': 'experiment',
  'model': 'model.name',
  'source': 'data.source',
  'dir': 'data.dir',
  'standin': 'data.standin',
  'image_size': 'data.image_size',
  'image_channels': 'data.channels',
  'conditional': 'data.conditional',
  'quantizer': 'precision.quantizer',
  'per_channel': 'precision.per_channel',
  'ranges': 'precision.ranges',
  'rules': 'precision.rules',
  'gradient_quantizer': 'precision.gradient_quantizer',
  'gradient_bits': 'precision.gradient_bits',
  'quantizer_learning_rate': 'precision.learning_rate',
  'start_step': 'precision.start_step',
  'anneal_steps': 'precision.anneal_steps',
  'anneal_from': 'precision.anneal_from',
  'alternate_steps': 'precision.alternate_steps',
  'prune_start': 'precision.prune_start',
  'prune_steps': 'precision.prune_steps',
  'init_from': 'init_from',
  'bits': 'bits',
  'g_bits': 'g_bits',
  'd_bits': 'd_bits',
  'w_bits': 'w_bits',
  'a_bits': 'a_bits',
  'g_w_bits': 'generator.bits.weights',
  'g_a_bits': 'generator.bits.activations',
  'd_w_bits': 'discriminator.bits.weights',
  'd_a_bits': 'discriminator.bits.activations',
  'loss': 'loss.name',
  'penalty': 'loss.penalty',
  'penalty_weight': 'loss.penalty_weight',
  'spectral_norm': 'discriminator.spectral_norm',
  'latent_dim': 'generator.latent_dim',
  **SHARED,
  **{f'g_{name}': f'generator.{path}' for name, path in SHARED.items()},
  **{f'd_{name}': f'discriminator.{path}' for name, path in SHARED.items()},
  'd_steps': 'discriminator.steps',
  'ema': 'ema.decay',
  'learning_rate_decay': 'learning_rate_decay',
  'steps': 'steps',
  'batch_size': 'batch_size',
  'dtype': 'dtype',
  'seed': 'seed',
  'log_every': 'logging.log_every',
  'sample_every': 'logging.sample_every',
  'eval_every': 'logging.eval_every',
  'checkpoint_every': 'logging.checkpoint_every',
  'diagnose': 'logging.diagnose',
  'diagnose_every': 'logging.diagnose_every',
  'extractor': 'scores.extractor',
}


def parse(arg: str | None) -> dict[str, str]:
  """Splits a config string into its keys and the text of their values.

  Args:
    arg: such as 'bits=8,seed=1'; None or blank for none.

  Returns:
    The pairs as written, in order.

  Raises:
    UserError: an entry is not `key=value`, or a key comes twice.
  """
  if arg is None or not arg.strip():
    return {}
  pairs: dict[str, str] = {}
  position = 1
  for entry in arg.split(','):
    key, equals, value = (part.strip() for part in entry.partition('='))
    where = f'config string {arg!r}, character {position}'
    if not (key and equals and value):
      raise UserError(
        f'{where}: {entry!r} is not key=value; write for example bits=8,seed=1'
      )
    if key in pairs:
      raise UserError(f'{where}: {key!r} is given twice; keep one of them')
    pairs[key] = value
    position += len(entry) + 1
  return pairs


def join(settings: Mapping[str, Any]) -> str:
  """The config string that `parse` splits into these settings."""
  return ','.join(f'{key}={value}' for key, value in settings.items())


def path_of(key: str, paths: Iterable[str]) -> str:
  """The config path that a key stands for.

  Args:
    key: a short name or a dotted path.
    paths: every path of the config.

  Raises:
    UserError: there is no such key.
  """
  paths = list(paths)
  if key in SHORT_NAMES:
    return SHORT_NAMES[key]
  if key in paths:
    return key
  inside = [path for path in paths if path.startswith(f'{key}.')]
  if inside:
    raise UserError(
      f'the config key {key!r} is a group; its keys are {", ".join(inside)}'
    )
  hint = did_you_mean(key, [*SHORT_NAMES, *paths])
  raise UserError(
    f'there is no config key {key!r}'
    + (hint or f'; the keys are {", ".join(SHORT_NAMES)}')
  )


def convert(key: str, text: str, kind: type) -> Any:
  """Reads the text of a value as the type of its key.

  Args:
    key: the key, for the message.
    text: what stands after the equals sign.
    kind: int, float, bool or str.

  Raises:
    UserError: the text is no such value, or is not finite.
  """
  if kind is str:
    return text
  if kind is bool:
    if text.lower() in ('true', 'false'):
      return text.lower() == 'true'
    raise UserError(f'{key}={text}: {key} takes true or false')
  expected = 'a whole number' if kind is int else 'a number'
  try:
    value = kind(text)
  except ValueError:
    raise UserError(f'{key}={text}: {key} takes {expected}') from None
  if not math.isfinite(value):
    raise UserError(f'{key}={text}: {key} takes a finite number')
  return value


def did_you_mean(name: str, names: Iterable[str]) -> str:
  """'; did you mean …?' with the nearest of the names, or ''."""
  nearest = difflib.get_close_matches(name, list(names), n=1)
  return f'; did you mean {nearest[0]!r}?' if nearest else ''
