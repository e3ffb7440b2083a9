"""Generators that come with the package, as `--artifact=gallery:NAME`.

`qgan_jax/gallery/README.md` describes where each comes from.
"""

from pathlib import Path

from qgan_jax.errors import did_you_mean, UserError

_FOLDER = Path(__file__).parents[1] / 'gallery'
_PREFIX = 'gallery:'


def names() -> list[str]:
  """Names of all generators in the gallery."""
  return sorted(path.stem for path in _FOLDER.glob('*.qgan'))


def path_of(artifact: str) -> str:
  """The path of an artifact that is given by path or by name.

  Args:
    artifact: a path, which is returned as it is, or `gallery:NAME`.

  Raises:
    UserError: the gallery has no such artifact.

  Example:
    >>> path_of('runs/mine/generator.qgan')
    'runs/mine/generator.qgan'
  """
  if not artifact.startswith(_PREFIX):
    return artifact
  name = artifact.removeprefix(_PREFIX)
  if name not in names():
    hint = did_you_mean(name, names())
    raise UserError(
      f'--artifact={artifact}: the gallery holds {", ".join(names())}'
      + (hint and f'; {hint}')
    )
  return str(_FOLDER / f'{name}.qgan')
