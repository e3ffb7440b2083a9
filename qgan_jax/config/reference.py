"""The table of keys for a reader: as a page of the docs, and on a terminal.

python -m qgan_jax.config.reference > docs/config.md
"""

from collections.abc import Iterator, Mapping
import re
import textwrap
from typing import Any

from ml_collections import ConfigDict

from qgan_jax.config.key import Group, Key
from qgan_jax.config.keys import GROUPS, KEYS
from qgan_jax.config.resolution import leaves

_PAGE = """\
# Keys of a config

Made by `python -m qgan_jax.config.reference > docs/config.md` from the table in
[`qgan_jax/config/keys.py`](../qgan_jax/config/keys.py).

`key=value,key=value` follows the experiment's file, by short names or paths:
`--config=mnist:bits=4,loss=hinge`. A flag `--config.PATH=VALUE`
sets a key by its path, and wins. Where a default says something about other
keys, it means what they are once the string and all flags are read.
`python -m qgan_jax.main --config=mnist --help_config` prints
these tables with the values of an experiment.
"""
_TERMINAL = """\
Keys of a config. NAME=VALUE,NAME=VALUE follows the experiment's file, as in
--config=mnist:bits=4,loss=hinge; --config.PATH=VALUE sets a key
by its path, here in parentheses. Values behind = are those that the experiment
has instead of the defaults.
"""
_WIDTH = 80


def page() -> str:
  """The page of the docs, in Markdown."""
  lines = [_PAGE]
  for group in GROUPS:
    lines += [f'## {group.title}', '']
    if group.about:
      lines += [group.about, '']
    lines += [
      '| name | path | what it is | default | allowed |',
      '|---' * 5 + '|',
    ]
    for rows in _rows(group):
      cells = (
        ', '.join(f'`{key.short}`' for key in rows if key.short),
        ', '.join(f'`{key.path}`' for key in rows),
        _about(rows[0]),
        _default(rows[0]),
        rows[0].kind.allowed,
      )
      lines.append(f'| {" | ".join(cells)} |')
    lines.append('')
  return '\n'.join(lines)


def listing(config: ConfigDict) -> str:
  """The table for a terminal.

  Args:
    config: what `base` returned, with whatever has been set since.
  """
  values = leaves(config)
  lines = [_TERMINAL]
  for group in GROUPS:
    lines += [group.title, *_wrap(group.about, 2)]
    for rows in _rows(group):
      lines += ['', *_entry(rows, values)]
    lines.append('')
  return '\n'.join(lines)


def _rows(group: Group) -> Iterator[tuple[Key, ...]]:
  """The keys of a group, each with those of single networks it stands for."""
  for key in group.keys:
    if len(key.broader) != 1:
      yield key, *(k for k in group.keys if k.broader == (key.short,))


def _entry(rows: tuple[Key, ...], values: Mapping[str, Any]) -> list[str]:
  """Lines about a key and those of single networks that it stands for."""
  key = rows[0]
  title = ', '.join(row.short or row.path for row in rows)
  if key.short not in ('', key.path):
    title += f' ({key.path})'
  own = [row for row in rows if values[row.path] != row.default]
  if len(rows) == 1 and own:
    title += f' = {_value(values[key.path])}'
  elif own:
    said = (f'{row.short} = {_value(values[row.path])}' for row in own)
    title += f': {", ".join(said)}'
  text = f'{_about(key)} Takes {key.kind.allowed}. By default {_default(key)}.'
  return [*_wrap(title, 2), *_wrap(text, 6)]


def _about(key: Key) -> str:
  """What a key is, and with what alone it does something, in Markdown."""
  only = ' and '.join(
    ' or '.join(f'`{KEYS[path].short}={value}`' for value in values)
    for path, values in key.only_with.items()
  )
  return f'{key.help} Only with {only}.' if only else key.help


def _default(key: Key) -> str:
  """What a key is where nothing is said, in Markdown."""
  if key.default is not None:
    return f'`{_value(key.default)}`'
  parts = [f'`{v}` in the {network}' for network, v in key.by_network.items()]
  said = key.follows or (key.unset and f'unset: {key.unset}')
  return '; '.join(filter(None, (', '.join(parts), said)))


def _value(value: Any) -> str:
  """A value as a config string has it."""
  if type(value) is bool:
    return str(value).lower()
  return str(int(value) if type(value) is float and value % 1 == 0 else value)


def _wrap(markdown: str, indent: int) -> list[str]:
  """Markdown as lines of plain text."""
  text = re.sub(r'\[.*?\]\((.*?)\)', r'docs/\1', markdown).replace('`', '')
  margin = ' ' * indent
  return textwrap.wrap(
    text, _WIDTH, initial_indent=margin, subsequent_indent=margin
  )


if __name__ == '__main__':
  print(page(), end='')
