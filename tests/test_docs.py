"""The documentation: it builds, its links lead somewhere, it is up to date."""

import ast
import importlib
import os
from pathlib import Path
import pkgutil
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import qgan_jax

ROOT = Path(__file__).parents[1]
# What only shortens the name of a type is no name of the reference.
SHORT_FORM = re.compile(r"[\w.]+|TypeVar\('\w+'\)")
PAGES = sorted(
  [*ROOT.glob('docs/**/*.md'), *ROOT.glob('*.md'), *ROOT.glob('*/README.md')]
)
LINK = re.compile(r'\]\(([^)\s]+)\)')
CODE = re.compile(r'```.*?```|`[^`\n]+`', re.DOTALL)


def anchors(path):
  """As GitHub makes them of a page's headings."""
  headings = re.findall(r'^#+ (.*)$', path.read_text(), re.MULTILINE)
  plain = [
    re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings
  ]
  return set(plain)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
  for link in LINK.findall(CODE.sub('', path.read_text())):
    place, _, anchor = link.partition('#')
    if place.startswith(('http:', 'https:')):
      continue
    target = (path.parent / place).resolve() if place else path
    assert target.exists(), f'{link} leads nowhere'
    if anchor:
      assert anchor in anchors(target), f'{link} names no heading'


@pytest.mark.parametrize('path', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_in_pages_can_be_read(path):
  for code in re.findall(r'```python\n(.*?)```', path.read_text(), re.DOTALL):
    compile(code, str(path), 'exec')


def run(*arguments):
  done = subprocess.run(
    [sys.executable, *arguments],
    cwd=ROOT,
    env=os.environ | {'NO_MKDOCS_2_WARNING': '1', 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_the_page_of_commands_is_what_help_says():
  assert (ROOT / 'docs' / 'commands.md').read_text() == run('docs/commands.py')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """The folder of the site, which builds without a warning."""
  path = tmp_path_factory.mktemp('site')
  run('-m', 'mkdocs', 'build', '--strict', '--site-dir', str(path))
  return path


def test_the_site_loads_nothing_from_elsewhere(site):
  page = (site / 'index.html').read_text()
  assert not re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css)"', page)


def modules():
  """(name, module) of all modules of the package."""
  found = pkgutil.walk_packages(qgan_jax.__path__, 'qgan_jax.')
  names = ['qgan_jax', *(module.name for module in found)]
  return [(name, importlib.import_module(name)) for name in names]


def defined(module):
  """The names without an underscore that a module's file defines."""
  for node in ast.parse(Path(module.__file__).read_text()).body:
    match node:
      case ast.FunctionDef(name) | ast.ClassDef(name):
        names = [ast.Name(name)]
      case ast.Assign([ast.Tuple(names)]):
        pass
      case ast.Assign(names, value) if not SHORT_FORM.fullmatch(
        ast.unparse(value)
      ):
        pass
      case ast.AnnAssign(name):
        names = [name]
      case _:
        continue
    for name in names:
      if isinstance(name, ast.Name) and not name.id.startswith('_'):
        yield f'{module.__name__}.{name.id}'


def exported(module):
  """The names of `__all__`, without those of modules, which are pages."""
  for name in getattr(module, '__all__', ()):
    # `quantize` is a command's module and a function.
    value = getattr(module, name)
    is_page = isinstance(value, ModuleType) and not callable(value)
    if not is_page and not name.startswith('_'):
      yield name


def entries(*pages):
  """[(name, what its heading says)] of what mkdocstrings has written."""
  return [
    entry
    for page in pages
    for entry in re.findall(
      r'<h\d id="([\w.]+)" class="doc doc-heading">(.*?)</h\d>',
      page.read_text(),
      re.DOTALL,
    )
  ]


def test_the_reference_has_every_public_name(site):
  shown = entries(*site.glob('python/*.html'))
  names = [name for name, _ in shown]
  assert len(names) == len(set(names)) > 500
  for name, module in modules():
    missing = {*defined(module)} - {*names}
    assert not missing, 'docs/python/ has no page with them'
    labelled = {
      path.rpartition('.')[2]
      for path, heading in shown
      if f'<code>from {name}</code>' in heading
    }
    assert labelled == {*exported(module)}
  door = [name.rpartition('.')[2] for name, _ in entries(site / 'python.html')]
  assert set(exported(qgan_jax)) < {*door}


def test_links_out_of_the_docs_lead_to_the_repository_or_are_text(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'docs')
  rewrite = importlib.import_module('site_links').on_page_markdown
  text = '[`draw`](../examples/draw.py), [split](data.md#split)'
  there = SimpleNamespace(repo_url='https://example.org/qgan/')
  assert rewrite(text, config=there) == (
    '[`draw`](https://example.org/qgan/blob/main/examples/draw.py), '
    '[split](data.md#split)'
  )
  nowhere = SimpleNamespace(repo_url='')
  assert rewrite(text, config=nowhere) == '`draw`, [split](data.md#split)'
