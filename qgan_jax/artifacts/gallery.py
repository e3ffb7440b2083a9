"""Generators that come with the package, as `--artifact=gallery:NAME`.

Where each comes from is said in `qgan_jax/gallery/README.md`.
"""

from pathlib import Path

from qgan_jax.errors import did_you_mean, UserError

_FOLDER = Path(__file__).parents[1] / 'gallery'
_PREFIX = 'gallery:'


def names() -> list[str]:
  """Of all of them."""
  return sorted(path.stem for path in _FOLDER.glob('*.qgan'))


def path_of(artifact: str) -> str:
  """The path of an artifact that a person named.

  Args:
    artifact: a path, which stays as it is, or `gallery:NAME`.

  Raises:
    UserError: the gallery holds no such artifact.

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
