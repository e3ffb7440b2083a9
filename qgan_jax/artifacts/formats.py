"""Exports a packed network to ONNX, LiteRT, StableHLO or a web page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qgan_jax.artifacts import tflite_builder
from qgan_jax.artifacts.described import check_metadata
from qgan_jax.artifacts.drawer import is_image, no_images
from qgan_jax.artifacts.files import replacing
from qgan_jax.artifacts.inference import describe, latents_of, outputs_of
from qgan_jax.artifacts.onnx_builder import require
from qgan_jax.artifacts.onnx_graphs import onnx_model
from qgan_jax.artifacts.packed import Artifact, read
from qgan_jax.artifacts.plan import make_plan, Plan
from qgan_jax.artifacts.stablehlo import stablehlo_model
from qgan_jax.artifacts.tflite_graphs import tflite_model
from qgan_jax.artifacts.web import find_runtime, web_page
from qgan_jax.errors import UserError

PACKED = '.qgan'
PAGE = '.html'


def _onnx(
  artifact: Artifact, *, form: str, integer: bool, split: bool = True
) -> bytes:
  return _graph(
    artifact,
    'ONNX',
    lambda plan, said: onnx_model(plan, form, said),
    integer=integer,
    split=split,
  )


def _tflite(artifact: Artifact, *, integer: bool) -> bytes:
  return _graph(artifact, 'LiteRT', tflite_model, integer=integer, split=False)


def _graph(
  artifact: Artifact,
  name: str,
  write: Callable[[Plan, Mapping[str, Any]], bytes],
  *,
  integer: bool,
  split: bool,
) -> bytes:
  """A file of a plan, in the format of a name."""
  description = describe(artifact.network)
  if not integer:
    description = f'{description.partition(",")[0]}, arithmetic in float32'
  said = {'description': description, 'metadata': artifact.metadata}
  try:
    plan = make_plan(artifact.network, integer=integer, split=split)
    return write(plan, said)
  except UserError:
    raise
  except Exception as error:  # What a module of your own may compute.
    reason = f'{type(error).__name__}: {str(error).strip().splitlines()[:1]}'
    raise UserError(
      f'{type(artifact.network.module).__name__} computes something that '
      f'cannot be written in {name} ({reason}): export it as packed or '
      'stablehlo'
    ) from error


# Format → {what a file's name ends in: what makes its content}. `export` itself
# copies the artifact for `packed`, and builds the page of `web` around a graph.
FORMATS: dict[str, dict[str, Callable[[Artifact], bytes]]] = {
  'packed': {},
  'onnx': {
    '-openvino.onnx': lambda artifact: _onnx(
      artifact, form='transposed', integer=True
    ),
    '-onnxruntime.onnx': lambda artifact: _onnx(
      artifact, form='gathered', integer=True
    ),
  },
  'onnx-vnni': {
    '-openvino-vnni.onnx': lambda artifact: _onnx(
      artifact, form='transposed', integer=True, split=False
    ),
    '-onnxruntime-vnni.onnx': lambda artifact: _onnx(
      artifact, form='gathered', integer=True, split=False
    ),
  },
  'onnx-float': {
    '-float.onnx': lambda artifact: _onnx(
      artifact, form='transposed', integer=False
    )
  },
  'tflite': {'.tflite': lambda artifact: _tflite(artifact, integer=True)},
  'tflite-float': {
    '-float.tflite': lambda artifact: _tflite(artifact, integer=False)
  },
  'stablehlo': {'.stablehlo': lambda artifact: stablehlo_model(*artifact)},
  'web': {},
}


def export(
  path: Path,
  formats: Sequence[str],
  out: Path,
  *,
  ort_web: Path | None = None,
) -> list[Path]:
  """Writes a packed network in other formats.

  Args:
    path: of a .qgan file; the names of the other files are made from its name.
    formats: names in `FORMATS`.
    out: the folder for the files, made if it is missing.
    ort_web: a folder with ONNX Runtime Web; None to get it with npm.

  Returns:
    Paths of the files. If one format is refused, no file is written.

  Raises:
    UserError: a format is unknown, a file cannot be read or written, or a
      format cannot express the generator.
  """
  for name in formats:
    if name not in FORMATS:
      raise UserError(f'--format={name}: one of {", ".join(FORMATS)}')
  if any(name.startswith(('onnx', 'web')) for name in formats):
    require('onnx')
  if any(name.startswith('tflite') for name in formats):
    tflite_builder.require('ai_edge_litert.schema_py_generated')
  artifact = read(path)
  if set(formats) != {'packed'}:
    try:
      check_metadata(artifact.metadata)
    except ValueError as error:
      raise UserError(
        f'{path} has metadata that only a .qgan file holds ({error}): save it '
        'again without them'
      ) from None
  if 'web' in formats and latents_of(artifact.network) is None:
    raise UserError(
      '--format=web: the page draws from latents, and what is in '
      f'{path} is called with something else; leave it out'
    )
  if 'web' in formats and not is_image(outputs := outputs_of(artifact.network)):
    raise no_images(path, outputs)
  runtime = find_runtime(ort_web) if 'web' in formats else None
  contents = {
    out / (path.stem + ending): make(artifact)
    for name in formats
    for ending, make in FORMATS[name].items()
  }
  if runtime:
    model = _onnx(artifact, form='gathered', integer=True)
    contents[out / (path.stem + PAGE)] = web_page(model, runtime)
  packed = out / (path.stem + PACKED)
  if 'packed' in formats and packed != path:
    contents[packed] = path.read_bytes()
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--out={out} cannot be a folder: {error.strerror}; name another'
    ) from None
  for place, content in contents.items():
    with replacing(place) as file:
      file.write(content)
  return list(contents)
