"""Losses and the like by name."""

from collections.abc import Mapping
from typing import Any


def named(table: Mapping[str, Any], what: str, name: str) -> Any:
  """The entry of a table.

  Args:
    table: by name.
    what: it is an entry of, for the message.
    name: of the entry.

  Raises:
    ValueError: there is none of that name.
  """
  if name not in table:
    raise ValueError(f'{what}={name!r}: one of {", ".join(table)}')
  return table[name]
