"""The grammar of config strings.

`--config=mnist:bits=4,loss=hinge` hands everything after the
first colon to the experiment: `key=value` pairs between commas. A key is a
short name or a dotted path of `keys` (`generator.channels=64`). Values are
plain text, read as the type that the key has; they hold no comma (use
`--config.KEY=VALUE` for one that does).
"""

from collections.abc import Mapping
import math
from typing import Any

from qgan_jax.errors import UserError


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
        f'{where}: {entry!r} is not key=value; write for example '
        'bits=8,seed=1, and a value that holds a comma as --config.KEY=VALUE'
      )
    if key in pairs:
      raise UserError(f'{where}: {key!r} is given twice; keep one of them')
    pairs[key] = value
    position += len(entry) + 1
  return pairs


def join(settings: Mapping[str, Any]) -> str:
  """The config string that `parse` splits into these settings."""
  return ','.join(f'{key}={value}' for key, value in settings.items())


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
  if kind is float and not math.isfinite(value):
    raise UserError(f'{key}={text}: {key} takes a finite number')
  return value
