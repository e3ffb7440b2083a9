"""What Griffe calls for the Python reference, once it has read the package.

Griffe reads Python for mkdocstrings. By itself it would show a name that a
package exports twice, there and where it is defined. Here each name is shown
once, where it is defined, with a label that says which package exports it.
Constants get their comment as a docstring, and what a class's docstring says
of its attributes is not repeated below it.
"""

from collections.abc import Iterator
from itertools import takewhile
import re
from typing import Any

import griffe

# What only shortens the name of a type, such as `Array = jax.Array`.
SHORT_FORM = re.compile(r"[\w.]+|TypeVar\('\w+'\)")


class Reference(griffe.Extension):
  """Prepares what was read for the pages of the reference."""

  def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
    """Labels what packages export, and documents constants."""
    for module in _modules(pkg):
      for name in module.exports or ():
        path = _defined(pkg, f'{module.path}.{name}').removeprefix('qgan_jax.')
        pkg[path].labels.add(f'from {module.path}')
    for module in _modules(pkg):
      module.exports = None  # Hides names that are defined elsewhere.
      if imports := module.members.get('__getattr__'):
        imports.public = False  # It imports what is used first.
      for constant in _own(module.attributes):
        constant.labels.discard('module-attribute')
        shortens = SHORT_FORM.fullmatch(str(constant.value))
        if constant.name == '__all__' or (shortens and not constant.labels):
          constant.public = False
        elif not constant.docstring and (text := _comment(module, constant)):
          constant.docstring = griffe.Docstring(text, parent=constant)
      for defined in _own(module.classes):
        told = _attributes(defined)
        for field in _own(defined.attributes):
          field.labels -= {'class-attribute', 'instance-attribute'}
          if field.name in told and not field.docstring:
            field.public = False


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
  """A package, and the modules inside it."""
  yield module
  for inner in module.modules.values():
    if not inner.is_alias:
      yield from _modules(inner)


def _own(members: dict[str, Any]) -> list[Any]:
  """Those of the members that are defined there."""
  return [member for member in members.values() if not member.is_alias]


def _attributes(defined: griffe.Class) -> set[str]:
  """The attributes that a class's docstring explains."""
  sections = defined.docstring.parse('google') if defined.docstring else []
  return {
    attribute.name
    for section in sections
    if section.kind is griffe.DocstringSectionKind.attributes
    for attribute in section.value
  }


def _defined(pkg: griffe.Module, path: str) -> str:
  """The path where a name is defined that may be imported from elsewhere."""
  parent, _, name = path.rpartition('.')
  inside = parent.removeprefix(pkg.path).removeprefix('.')
  module = pkg[inside] if inside else pkg
  source = module.imports.get(name, path) if module.is_module else path
  return path if source == path else _defined(pkg, source)


def _comment(module: griffe.Module, constant: griffe.Attribute) -> str:
  """The comment above a constant, or else the one that its line ends with."""
  first = (constant.lineno or 1) - 1
  lines = [str(line) for line in module.lines]
  above = takewhile(lambda line: line.startswith('#'), lines[first - 1 :: -1])
  if found := list(above)[::-1] if first else []:
    return _text(found)
  _, marker, text = lines[first].partition('  # ')
  below = takewhile(lambda line: re.match(' +#', line), lines[first + 1 :])
  return _text([text, *below]) if marker else ''


def _text(comment: list[str]) -> str:
  """What the lines of a comment say."""
  return ' '.join(line.lstrip(' #') for line in comment)
