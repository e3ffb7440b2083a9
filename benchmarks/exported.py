"""What an artifact is exported to, opened in every runtime that reads it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from qgan_jax import artifacts
from qgan_jax.artifacts.drawer import Drawer
from qgan_jax.artifacts.drawing import RUNTIMES
from qgan_jax.artifacts.formats import export
from qgan_jax.errors import UserError


def exported(
  artifact: Path, formats: Sequence[str], folder: Path
) -> Iterator[tuple[str, Drawer | UserError]]:
  """Every file's drawers, or why there is none, by 'file, runtime'.

  Args:
    artifact: of a run, a .qgan file.
    formats: names of `qgan_jax.artifacts.formats.FORMATS`.
    folder: for the files.
  """
  yield f'{artifact.name}, jax', artifacts.open_drawer(artifact)
  for name in formats:
    try:
      files = export(artifact, [name], folder)
    except UserError as error:
      yield name, error
      continue
    for path in files:
      for runtime in RUNTIMES[name.partition('-')[0]]:
        # ONNX Runtime would run OpenVINO's integers in float.
        if '-openvino' in path.name and runtime != 'openvino':
          continue
        try:
          drawer: Drawer | UserError = artifacts.open_drawer(path, runtime)
        except UserError as error:
          drawer = error
        yield f'{path.name}, {runtime}', drawer
