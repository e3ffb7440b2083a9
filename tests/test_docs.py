"""The documentation: it builds, its links lead somewhere, it is up to date."""

import importlib
import os
from pathlib import Path
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
  [*ROOT.glob('docs/*.md'), *ROOT.glob('*.md'), *ROOT.glob('*/README.md')]
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


def test_the_site_builds_without_a_warning(tmp_path):
  run('-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path))
  page = (tmp_path / 'python.html').read_text()
  for name in 'runs.own.train', 'post_training.quantize', 'artifacts.load':
    assert f'id="qgan_jax.{name}"' in page
  # Nothing is loaded from elsewhere.
  assert not re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css)"', page)


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
