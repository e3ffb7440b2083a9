"""Looks up losses, penalties and the like by name."""

from collections.abc import Mapping
from typing import Any


def named(table: Mapping[str, Any], what: str, name: str) -> Any:
  """Looks up an entry of a table.

  Args:
    table: entries by name.
    what: kind of entry, for the error message.
    name: of the entry.

  Raises:
    ValueError: the table has no such name.
  """
  if name not in table:
    raise ValueError(f'{what}={name!r}: one of {", ".join(table)}')
  return table[name]
