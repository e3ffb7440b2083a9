"""The grammar of --sweep: which config strings a sweep consists of.

  bits=1,2,4;seed=0..2                 every bit width with every seed: 9
  bits=8,4&learning_rate=1e-3,5e-4     side by side: 2
  bits=8,4&learning_rate=1e-3,5e-4;seed=0..2   both: 6

`;` multiplies, the last axis turning fastest; `&` binds tighter and takes the
first values together, then the second ones. A list's entries stand between
commas, and `a..b` stands for the whole numbers from a to b.
"""

import itertools
import re

from qgan_jax.config import grammar
from qgan_jax.errors import UserError

# Python refuses to read numbers of some thousand digits.
_RANGE = re.compile(r'([+-]?\d{1,99})\.\.([+-]?\d{1,99})')
_EXAMPLE = "--sweep='bits=2,4,8;seed=0..2'"
# More is a slip of the keyboard rather than a plan.
MAX_TRIALS = 10_000


def expand(text: str) -> list[str]:
  """The config strings of a sweep, in order.

  Args:
    text: such as 'bits=1,2,4;seed=0..2'.

  Raises:
    UserError: the text is malformed, a key comes twice, or what stands side
      by side is not equally long.
  """
  keys: list[str] = []
  axes = []
  size = 1
  for term in text.split(';'):
    columns = [_column(text, entry) for entry in term.split('&')]
    keys += [key for key, _ in columns]
    lengths = {len(values) for _, values in columns}
    if len(lengths) > 1:
      said = ', '.join(f'{key} {len(values)}' for key, values in columns)
      raise UserError(
        f'--sweep: {term!r} takes values side by side, and their numbers '
        f'differ ({said})'
      )
    size *= lengths.pop()
    _check_size(text, size)
    axes.append(
      [
        list(zip((key for key, _ in columns), row, strict=True))
        for row in zip(*(values for _, values in columns), strict=True)
      ]
    )
  for key in keys:
    if keys.count(key) > 1:
      raise UserError(
        f'--sweep: {key!r} comes twice in {text!r}; put all its values into '
        f'one list, {key}=…,…'
      )
  return [
    grammar.join(dict(itertools.chain(*rows)))
    for rows in itertools.product(*axes)
  ]


def _check_size(text: str, size: int) -> None:
  if size > MAX_TRIALS:
    raise UserError(
      f'--sweep: {text!r} makes more than {MAX_TRIALS:,} trials; split it'
    )


def _column(text: str, entry: str) -> tuple[str, list[str]]:
  """A key and its values."""
  key, equals, listed = (part.strip() for part in entry.partition('='))
  values = [value.strip() for value in listed.split(',')]
  if not (key and equals and all(values)):
    raise UserError(
      f'--sweep: {entry!r} in {text!r} is not key=value,value,…; say for '
      f'example {_EXAMPLE}'
    )
  out: list[str] = []
  for value in values:
    match = _RANGE.fullmatch(value)
    if not match:
      out.append(value)
      continue
    first, last = int(match[1]), int(match[2])
    if first > last:
      raise UserError(
        f'--sweep: the range {key}={value} is empty; say {last}..{first}'
      )
    _check_size(text, last - first + 1)
    out += map(str, range(first, last + 1))
  return key, out
