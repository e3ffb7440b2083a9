"""Imports point one way, and what is heavy is imported in one place."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
  path
  for folder in ('qgan_jax', 'experiments')
  for path in (ROOT / folder).rglob('*.py')
)
# What a part of the package may import of the rest; itself is always allowed.
ALLOWED = {
  'backend': set(),
  'errors': {'interrupts'},
  'interrupts': set(),
  'quantizers': set(),
  'records': {'errors'},
  'precision': {'errors', 'quantizers'},
  'models': {'backend', 'errors'},
  'chips': {'errors'},
  'data': {'errors'},
  'metrics': {'errors'},
  'artifacts': {'errors', 'models', 'precision', 'quantizers', 'records'},
  'variants': set(),
  'training': {
    'backend',
    'data',
    'errors',
    'precision',
    'quantizers',
    'records',
    'variants',
  },
  'post_training': {'errors', 'precision', 'quantizers'},
  'reports': {'artifacts', 'errors', 'records'},
  # What starts commands knows nothing of what they do.
  'launchers': {'errors', 'records'},
  # The names of losses and optimizers are checked where a config is.
  'config': {
    'errors',
    'models',
    'precision',
    'quantizers',
    'training',
    'variants',
  },
  'runs': {
    'artifacts',
    'backend',
    'chips',
    'config',
    'data',
    'errors',
    'launchers',
    'metrics',
    'models',
    'post_training',
    'precision',
    'quantizers',
    'records',
    'training',
    'variants',
  },
  'experiments': {'config'},
  # Commands.
  '__main__': {'errors'},
  'evaluate': {'artifacts', 'config', 'errors', 'runs'},
  'export': {'artifacts', 'errors'},
  'main': {'config', 'errors', 'runs', 'training'},
  'population': {'errors', 'runs'},
  'preflight': {'chips', 'config', 'errors', 'records', 'runs'},
  'quantize': {'errors', 'post_training', 'precision', 'quantizers', 'runs'},
  'report': {'errors', 'reports'},
  'sample': {'artifacts', 'data', 'errors'},
  'sweep': {'config', 'errors', 'runs'},
}
COMMANDS = {path.stem for path in ROOT.glob('qgan_jax/*.py')} - {
  '__init__', 'backend', 'errors', 'interrupts'
}  # fmt: skip
# Libraries that one file knows, and no other.
ONE_FILE = {
  'tensorflow_datasets': 'qgan_jax/data/tfds.py',
  'orbax': 'qgan_jax/training/checkpoints.py',
  'ray': 'qgan_jax/launchers/ray.py',
  'submitit': 'qgan_jax/launchers/slurm.py',
}
NEVER = {'tensorflow', 'torch'}


def imported(path):
  """Dotted names of all that a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: a relative import'
      # What is behind `import` is a module, or a name in one.
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def part(path):
  """The part of the package that a file belongs to: 'data', 'main'…."""
  first, *rest = path.relative_to(ROOT).parts
  return Path(rest[0]).stem if first == 'qgan_jax' else first


def parts_imported(path):
  names = (name.split('.') for name in imported(path))
  return {name[1] for name in names if name[0] == 'qgan_jax' and name[1:]}


@pytest.mark.parametrize('name', ALLOWED)
def test_a_part_imports_only_what_it_may(name):
  files = [path for path in FILES if part(path) == name]
  assert files
  for path in files:
    wrong = parts_imported(path) - ALLOWED[name] - {name}
    assert not wrong, f'{path.relative_to(ROOT)} imports {wrong}'


def test_every_room_and_every_command_has_its_rule():
  rooms = {path.parent.name for path in ROOT.glob('qgan_jax/*/__init__.py')}
  assert rooms | COMMANDS <= set(ALLOWED)


def test_commands_are_imported_by_no_part():
  for path in FILES:
    wrong = parts_imported(path) & COMMANDS - {part(path)}
    assert not wrong, f'{path.relative_to(ROOT)} imports {wrong}'


def find_circles(graph):
  """Sets of nodes that reach each other, for {node: nodes it points to}."""

  def reached(start):
    found, new = set(), set(graph[start])
    while new:
      found |= new
      new = {after for node in new for after in graph[node]} - found
    return found

  ends = {node: reached(node) for node in graph}
  return {
    frozenset(b for b in ends[a] if a in ends[b]) for a in graph if a in ends[a]
  }


def test_circles_are_found():
  graph = {'a': 'b', 'b': 'cd', 'c': 'a', 'd': 'e', 'e': 'd', 'f': 'a'}
  assert find_circles(graph) == {frozenset('abc'), frozenset('de')}
  assert not find_circles({'a': 'bc', 'b': 'c', 'c': ''})


def test_files_import_each_other_in_no_circle():
  """Nor where the imports stand in functions, which hides a circle."""
  graph = {}
  for path in FILES:
    names = path.relative_to(ROOT).with_suffix('').parts
    name = '.'.join(names[:-1] if names[-1] == '__init__' else names)
    graph[name] = set(imported(path))
  for name, found in graph.items():
    # `package.module.function` is of the file of `package.module`.
    files = {
      max((file for file in graph if f'{n}.'.startswith(f'{file}.')), key=len)
      for n in found
      if n.startswith('qgan_jax.')
    }
    graph[name] = files - {name}
  assert not find_circles(graph)


def test_one_file_knows_each_heavy_library():
  users = {name: set() for name in ONE_FILE.keys() | NEVER}
  for path in FILES:
    for name in imported(path):
      if name.split('.')[0] in users:
        users[name.split('.')[0]].add(str(path.relative_to(ROOT)))
  expected = {name: {path} for name, path in ONE_FILE.items()}
  assert users == expected | {name: set() for name in NEVER}


@pytest.mark.parametrize(
  ('module', 'needed', 'unwanted'),
  [
    (
      'qgan_jax.sample',
      'qgan_jax.artifacts',
      (
        'qgan_jax.training',
        'qgan_jax.data',
        'qgan_jax.metrics',
        'optax',
        'orbax',
        'tensorflow_datasets',
        'ml_collections',
        'sklearn',
      ),
    ),  # fmt: skip
    (
      'qgan_jax.export',
      'qgan_jax.artifacts.formats',
      ('qgan_jax.training', 'qgan_jax.data', 'orbax', 'ml_collections'),
    ),
    # `qgan` tells its commands without importing one.
    ('qgan_jax.__main__', 'absl.flags', ('numpy', 'ml_collections')),
    # Its --help is there without the libraries of the extra `report`.
    ('qgan_jax.report', 'absl.flags', ('jax', 'pandas', 'qgan_jax.reports')),
    ('qgan_jax.quantizers', 'jax', ('flax', 'ml_collections', 'absl.app')),
    (
      'qgan_jax.sweep',
      'qgan_jax.launchers',
      (
        'qgan_jax.training.loop',
        'orbax',
        'tensorflow_datasets',
        'ray',
        'submitit',
      ),
    ),
    ('qgan_jax.main', 'qgan_jax.training.loop', ('tensorflow',)),
  ],
)
def test_what_importing_loads(module, needed, unwanted):
  loaded = subprocess.run(
    [sys.executable, '-c', f'import sys, {module}; print(*sys.modules)'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert needed in loaded
  wrong = {m for m in loaded for u in unwanted if f'{m}.'.startswith(f'{u}.')}
  assert not wrong


def test_importing_starts_no_backend():
  """Two processes can meet only before one is started."""
  code = (
    'import qgan_jax.main; from jax._src import xla_bridge; '
    'assert not xla_bridge._backends'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
