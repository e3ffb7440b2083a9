"""Commands, flags, keys and messages that pages name are there."""

import ast
import functools
import importlib
import importlib.util
from pathlib import Path
import re
import shlex

import pytest

from qgan_jax import config
from qgan_jax.__main__ import COMMANDS
from qgan_jax.config.grammar import parse
from qgan_jax.config.keys import path_of
from qgan_jax.config.sweep_grammar import expand

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('docs/*.md'), *ROOT.glob('*.md')])
BLOCK = re.compile(r'^```\w*.*?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
# Flags of other programs that the text names beside its own.
OF_OTHERS = {'file_format', 'help', 'only', 'kills', 'kinds', 'allocator'}


def snippets(path):
  """Lines of code in a page: of blocks, and between backticks."""
  text = path.read_text()
  for block in BLOCK.findall(text):
    yield from block.replace('\\\n', ' ').splitlines()
  # Text breaks anywhere between words.
  for code in re.findall('`([^`]+)`', BLOCK.sub('', text)):
    yield ' '.join(code.split())


@functools.cache
def flags_of(module):
  """The names of a command's flags."""
  commands = importlib.util.spec_from_file_location(
    'commands_page', ROOT / 'docs' / 'commands.py'
  )
  page = importlib.util.module_from_spec(commands)
  commands.loader.exec_module(page)
  _, flags = page.read_help(module)
  return {name for f in flags for name in (f.name, f'no{f.name}')}


def check_config(value):
  """`NAME:key=value,…`, as --config takes it."""
  name, _, keys = value.partition(':')
  if '…' in name or not name.islower():
    return  # A name that stands for any, such as EXPERIMENT.
  page = ROOT / 'experiments' / Path(name).with_suffix('.py').name
  assert page.exists(), f'there is no experiment {name}'
  for key in parse(keys.replace('…', '').strip(',')):
    path_of(key)


def check_words(words, flags):
  """Checks what follows a command, or stands by itself."""
  for word in words:
    flag, equals, value = word.partition('=')
    if not re.fullmatch(r'--[a-z][\w.]*', flag):
      continue
    name, _, key = flag[2:].partition('.')
    assert name in flags, f'there is no flag {flag}'
    if key and key.islower():
      path_of(key)
    elif name == 'config' and equals:
      check_config(value)
    elif name == 'sweep' and equals and '…' not in value:
      for keys in expand(value):
        for key in parse(keys):
          path_of(key)


def check_line(line):
  """Checks one line of code; those of other programs are left alone."""
  line = line.partition('  #')[0]
  command = re.search(r'python -m (qgan_jax\.[a-z_.]+)|\bqgan ([a-z]+)\b', line)
  if not command:
    if line.startswith('--'):
      every = set().union(*map(flags_of, set(COMMANDS.values())))
      check_words(shlex.split(line), every | OF_OTHERS)
    return
  module, name = command.groups()
  if name is None:
    assert importlib.util.find_spec(module), f'there is no module {module}'
    name = module.rpartition('.')[2]
  if name in COMMANDS:
    words = shlex.split(line[command.end() :])
    check_words(words, flags_of(COMMANDS[name]) | {'help'})
  else:
    assert module, f'there is no command qgan {name}'


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_flags_and_keys_that_are_named_are_there(path):
  for line in snippets(path):
    check_line(line)


@pytest.mark.parametrize(
  'line',
  [
    'python -m qgan_jax.trian --config=mnist',
    'qgan sampel --out=x.png',
    'python -m qgan_jax.sample --artefact=x',
    'python -m qgan_jax.main --config=minst:bits=8',
    'python -m qgan_jax.main --config=mnist:bitz=8',
    'python -m qgan_jax.main --config=mnist --config.data.dirr=x',
    "python -m qgan_jax.sweep --config=mnist --sweep='bitz=2,4;seed=0..2'",
    '--grate=3',
  ],
)
def test_what_is_not_there_is_found(line):
  with pytest.raises((AssertionError, config.check.UserError)):
    check_line(line)


@functools.cache
def messages():
  """All texts of the package, with … in place of what is filled in."""
  found = set()
  for path in (ROOT / 'qgan_jax').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      match node:
        case ast.JoinedStr(parts):
          found.add(
            ''.join(
              getattr(part, 'value', '…')
              if isinstance(part, ast.Constant)
              else '…'
              for part in parts
            )
          )
        case ast.Constant(str(text)):
          found.add(text)
  return found


def is_said(quote):
  """Whether a message has the words of a quote, in which … is anything."""
  words = [re.escape(part.strip()) for part in quote.split('…')]
  pattern = re.compile('.*'.join(words), re.DOTALL)
  return any(pattern.search(text) for text in messages())


def test_messages_that_are_quoted_are_said():
  page = (ROOT / 'docs' / 'troubleshooting.md').read_text()
  quotes = re.findall(r'\*\*"([^"]+)"', page)
  assert len(quotes) > 5
  for quote in quotes:
    assert is_said(quote), f'no message says {quote!r}'
  assert not is_said('… holds a run with the same config')


# Arguments of functions in Python, which are written like keys.
ARGUMENTS = {'axis', 'discriminator_inputs', 'key', 'train'}


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_settings_that_are_named_are_keys(path):
  for line in snippets(path):
    if re.fullmatch(r'[a-z_]+(\.[a-z_]+)*=[^\s(]+', line):
      for key in re.findall(r'(?:^|[,;&])([a-z_.]+)=', line):
        assert key in ARGUMENTS or path_of(key)
