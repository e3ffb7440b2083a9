"""What the files of runs and sweeps hold.

A schema is a function of a value and of its place in the file, for the message.
It raises ValueError where the value is not what the place is for.
"""

from collections.abc import Callable, Mapping
import math
import re
import reprlib
from typing import Any, NoReturn

Schema = Callable[[Any, str], None]
_LARGEST = 2**63  # Integers that NumPy and pandas hold.
_DEEPEST = 16  # Tables in tables; configs have 3.


def number(value: Any, where: str) -> None:
  """A finite number."""
  real = isinstance(value, (int, float)) and not isinstance(value, bool)
  if isinstance(value, int) and real and abs(value) >= _LARGEST:
    _refuse(value, where, 'a number of 64 bits')
  if not real or not math.isfinite(value):
    _refuse(value, where, 'a finite number')


def integer(value: Any, where: str) -> None:
  """A whole number of 64 bits."""
  if not isinstance(value, int) or isinstance(value, bool):
    _refuse(value, where, 'a whole number')
  number(value, where)


def count(value: Any, where: str) -> None:
  """A whole number that is not negative, such as a step."""
  integer(value, where)
  if value < 0:
    _refuse(value, where, '0 or more')


def text(value: Any, where: str) -> None:
  """Text that can be written and be part of a path."""
  if not isinstance(value, str):
    _refuse(value, where, 'text')
  # A lone surrogate has no UTF-8, and no path holds a zero.
  if '\0' in value or any('\ud800' <= c <= '\udfff' for c in value):
    _refuse(value, where, 'text of valid characters')


def anything(value: Any, where: str, depth: int = 0) -> None:
  """Whatever else JSON holds: finite, valid, and not nested without end."""
  if depth > _DEEPEST:
    raise ValueError(f'it is nested more than {_DEEPEST} deep')
  if isinstance(value, dict):
    for key, inner in value.items():
      text(key, _at(where, 'a key'))
      anything(inner, _at(where, key), depth + 1)
  elif isinstance(value, list):
    for i, inner in enumerate(value):
      anything(inner, f'{where}[{i}]', depth + 1)
  elif isinstance(value, str):
    text(value, where)
  elif value is not None and not isinstance(value, bool):
    number(value, where)


def maybe(schema: Schema) -> Schema:
  """Null, or what a schema says."""

  def check(value: Any, where: str) -> None:
    if value is not None:
      schema(value, where)

  return check


def list_of(schema: Schema) -> Schema:
  """A list, each entry as a schema says."""

  def check(value: Any, where: str) -> None:
    if not isinstance(value, list):
      _refuse(value, where, 'a list')
    for i, inner in enumerate(value):
      schema(inner, f'{where}[{i}]')

  return check


def mapping(schema: Schema) -> Schema:
  """An object with any names, each value as a schema says."""

  def check(value: Any, where: str) -> None:
    if not isinstance(value, dict):
      _refuse(value, where, 'an object')
    for key, inner in value.items():
      text(key, _at(where, 'a key'))
      schema(inner, _at(where, key))

  return check


def table(
  required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None
) -> Schema:
  """An object with these values; other names may hold `anything`."""
  known = {**required, **(optional or {})}

  def check(value: Any, where: str) -> None:
    if not isinstance(value, dict):
      _refuse(value, where, 'an object')
    missing = next((name for name in required if name not in value), None)
    if missing:
      raise ValueError(f'{where or "it"} has no {missing!r}')
    for key, inner in value.items():
      text(key, _at(where, 'a key'))
      known.get(key, anything)(inner, _at(where, key))

  return check


def _at(where: str, key: str) -> str:
  return f'{where}.{key}' if where else key


def _refuse(value: Any, where: str, wanted: str) -> NoReturn:
  shown = 'null' if value is None else reprlib.repr(value)
  raise ValueError(f'{where or "it"} is {shown}, and should be {wanted}')


def _image_size(value: Any, where: str) -> None:
  """A number of pixels, or two, as in '48x32'."""
  if isinstance(value, str) and re.fullmatch('[0-9]{1,9}x[0-9]{1,9}', value):
    return
  count(value, where)


def _score(value: Any, where: str) -> None:
  """The scores of one checkpoint, with one distance at least."""
  _SCORE(value, where)
  if not any(value.get(name) is not None for name in DISTANCES):
    raise ValueError(f'{where} has neither of {", ".join(DISTANCES)}')


_NETWORK = table({}, {'bits': table({}, dict.fromkeys(
  ('weights', 'activations'), number
))})  # fmt: skip
# What the report reads; `config.from_json` knows what all keys may hold.
_CONFIG = table(
  {'experiment': text},
  {
    'seed': integer,
    'steps': count,
    'data': table({}, {'source': text, 'image_size': maybe(_image_size)}),
    'generator': _NETWORK,
    'discriminator': _NETWORK,
  },
)
DISTANCES = ('fid', 'frechet_distance')
QUALITIES = (
  'kid_mean', 'kernel_distance_mean', 'precision', 'recall', 'density',
  'coverage', 'effective_rank', 'mode_kl', 'modes_covered',
)  # fmt: skip
# Further scores: those of VAEs, and of networks that turn images into images.
MEASURED = (
  'elbo', 'importance_weighted_bound', 'kl', 'reconstruction_error', 'l1',
  'psnr', 'ssim',
)  # fmt: skip
_SCORE = table(
  {
    'step': count,
    'num_real': count,
    'num_fake': count,
    'extractor': table(
      {'name': text, 'hash': text},
      {'accuracy': maybe(number), 'resize': text},
    ),
  },
  {
    'seed': integer,
    'num_neighbours': count,
    'num_features': count,
    'caveats': list_of(text),
    'reference': text,
    'weights': text,
    **dict.fromkeys((*DISTANCES, *QUALITIES, *MEASURED), maybe(number)),
  },
)  # fmt: skip

# What config.json has to hold.
RUN = table(
  {'config': _CONFIG, 'dataset': text},
  {
    'class_names': list_of(text),
    'file': text,
    'arg': text,
    'overrides': mapping(anything),
    'cwd': text,
    'versions': mapping(text),
    'devices': list_of(text),
  },
)
# What pictures.json has to hold.
PICTURES = table({'pictures': list_of(text)})
# What precision.json has to hold.
PRECISION = list_of(
  table(
    {'network': text, 'role': text, 'bits': number, 'shape': list_of(count)}
  )
)
# What scores.json has to hold.
SCORES = table(
  {
    'best': _score,
    'last': _score,
  },
  {
    'dataset': text,
    'config': text,
    'sizes': table(
      dict.fromkeys(('artifact_bytes', 'float_bytes', 'ratio'), number)
    ),
  },
)
# What sweep.json has to hold.
SWEEP = table(
  {
    'trials': list_of(
      table(
        {'name': text, 'args': list_of(text), 'config': _CONFIG},
        {'workdir': text, 'command': text},
      )
    ),
    'origin': mapping(anything),
  },
  {'sessions': list_of(mapping(anything))},
)
# What states.json has to hold.
STATES = mapping(
  table(
    {},
    {'state': text, 'attempts': count, 'seconds': number, 'message': text},
  )
)
# What population.json has to hold.
TRIALS = list_of(table({'workdir': text, 'args': list_of(text)}))
