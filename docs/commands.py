"""Writes the reference of all commands from their own --help.

python docs/commands.py > docs/commands.md
"""

import contextlib
import importlib
import io
import re
from typing import NamedTuple

from qgan_jax.__main__ import COMMANDS

_PAGE = """\
# Commands

Made by `python docs/commands.py > docs/commands.md` from what `--help` of each
command prints. Where the package is installed, `qgan COMMAND` is the same as
`python -m qgan_jax.COMMAND`, and `qgan train` is `qgan_jax.main`. A yes-or-no
flag is set by its name and unset by `no` before it: `--files`, `--nofiles`.
"""


class Flag(NamedTuple):
  """What --help says of a flag."""

  name: str
  is_switch: bool
  about: str
  default: str
  takes: str


def read_help(module: str) -> tuple[str, list[Flag]]:
  """What a command prints at --help: its description, and its own flags.

  Args:
    module: the command's module in the package, such as 'sample'.
  """
  printed = io.StringIO()
  main = importlib.import_module(f'qgan_jax.{module}').main
  with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
    main(['--help'])
  description, _, listed = printed.getvalue().partition('\nflags:\n')
  entries = re.findall(
    r'^  --(\[no\])?(\w+): (.*(?:\n    .*)*)', listed, re.MULTILINE
  )
  return description.strip(), [
    _flag(name, bool(no), text) for no, name, text in entries
  ]


def _flag(name: str, is_switch: bool, text: str) -> Flag:
  """A flag by the lines of its help; those in parentheses end them."""
  lines = [line.strip() for line in text.splitlines()]
  default = takes = ''
  while lines[-1].startswith('(') and lines[-1].endswith(')'):
    line = lines.pop()[1:-1]
    if line.startswith('default: '):
      default = line.removeprefix('default: ').strip("'")
    else:
      takes = line
  about = ' '.join(lines)
  if choices := re.match(r'<(.*?)>: ', about):
    # Long lists are broken between lines, also inside of a word.
    words = choices[1].replace(' ', '').split('|')
    takes = ', '.join(f'`{word}`' for word in words)
    about = about[choices.end() :]
  default = '' if default == 'None' else default
  return Flag(name, is_switch, about, default, takes)


def page() -> str:
  """The page of the docs, in Markdown."""
  lines = [_PAGE]
  for module in dict.fromkeys(COMMANDS.values()):
    description, flags = read_help(module)
    lines += [f'## {module}', '', _in_markdown(description), '']
    lines += ['| flag | what it is | takes | default |', '|---' * 4 + '|']
    for flag in flags:
      cells = (
        f'`--{flag.name}`',
        _marked(flag.about),
        'yes or no' if flag.is_switch else flag.takes,
        f'`{flag.default}`' if flag.default else '',
      )
      lines.append(f'| {" | ".join(cells)} |')
    lines.append('')
  return '\n'.join(lines)


def _in_markdown(text: str) -> str:
  """A docstring whose indented lines become blocks of code."""
  blocks = []
  for block in text.split('\n\n'):
    lines = block.splitlines()
    if all(line.startswith('  ') for line in lines):
      code = '\n'.join(line.removeprefix('  ') for line in lines)
      blocks.append(f'```text\n{code}\n```')
    else:
      blocks.append(_marked(block))
  return '\n\n'.join(blocks)


def _marked(text: str) -> str:
  """Text in which flags look like code."""
  return re.sub(r'(?<![`\w-])--\w+(?:\.\w+)*(?:=\w+)?', r'`\g<0>`', text)


if __name__ == '__main__':
  print(page(), end='')
