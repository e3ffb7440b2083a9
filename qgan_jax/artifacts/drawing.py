"""Images from an artifact of any format, by the fastest runtime there is.

Nothing here imports JAX until a file needs it: ONNX files do not.
"""

from collections.abc import Callable, Mapping
import importlib.util
import json
import os
from pathlib import Path
import platform
import sys
from typing import Any

from absl import logging
import numpy as np

from qgan_jax.artifacts.drawer import Drawer, METADATA_KEY, not_from_latents
from qgan_jax.errors import UserError

# By format, the fastest first.
RUNTIMES = {
  'packed': ('jax',),
  'stablehlo': ('jax',),
  'onnx': ('openvino', 'onnxruntime'),
}
_CPU_INFO = Path('/proc/cpuinfo')


def open_drawer(
  path: str | os.PathLike[str], runtime: str | None = None
) -> Drawer:
  """Opens an artifact; its content says of which format it is.

  Args:
    path: of a .qgan, .onnx or .stablehlo file.
    runtime: one of `RUNTIMES` of that format; None for the fastest that is
      installed and can read the file.

  Raises:
    UserError: for a file that cannot be read, and a runtime that is not
      installed or cannot read it.
  """
  path = Path(path)
  kind = _kind(path)
  if runtime is not None and runtime not in RUNTIMES[kind]:
    raise UserError(
      f'--runtime={runtime}: {path} is {kind}, which runs in '
      + ' or '.join(RUNTIMES[kind])
    )
  if kind == 'packed':
    return _open_packed(path)
  if kind == 'stablehlo':
    from qgan_jax.artifacts.stablehlo import open_stablehlo

    return open_stablehlo(path)
  return _open_onnx(path, runtime)


def _kind(path: Path) -> str:
  try:
    with open(path, 'rb') as file:
      start = file.read(16)
  except OSError as error:
    raise UserError(
      f'cannot read {path}: {error.strerror or error}; give the path of a '
      '.qgan, .onnx or .stablehlo file'
    ) from error
  if start[8:9] == b'{':  # Of safetensors, behind the length of its header.
    return 'packed'
  if start[:4] == b'PK\3\4':
    return 'stablehlo'
  # What begins a protocol buffer of ONNX: the version of its format, a varint.
  if start[:1] == b'\x08':
    return 'onnx'
  raise UserError(
    f'{path} is not a whole .qgan, .onnx or .stablehlo file: copy or export it '
    'again'
  )


def _open_packed(path: Path) -> Drawer:
  from qgan_jax.artifacts.inference import describe, images, latents_of
  from qgan_jax.artifacts.packed import load

  network = load(path)
  latents = latents_of(network)
  if latents is None:
    raise not_from_latents(path, [x.shape for x in network.inputs or ()])
  return Drawer(
    lambda latents, labels: images(network, latents, labels),
    *latents,
    'jax',
    describe(network),
  )


def _open_onnx(path: Path, runtime: str | None) -> Drawer:
  choices = (runtime,) if runtime else RUNTIMES['onnx']
  # A graph made for ONNX Runtime; OpenVINO draws the same from it.
  if b'"form": "gathered"' in path.read_bytes():
    choices = choices[::-1]
  installed = [name for name in choices if importlib.util.find_spec(name)]
  if not installed:
    extra = 'openvino' if runtime == 'openvino' else 'onnx'
    raise UserError(
      f'to draw from {path}, install {" or ".join(choices)}: '
      f"pip install -e '.[{extra}]'"
    )
  reasons = []
  for name in installed:
    try:
      run, metadata = _LOADERS[name](path)
    except Exception as error:  # Each runtime raises what it likes.
      reasons.append(f'{name}: {str(error).strip().splitlines()[-1:]}')
      continue
    return onnx_drawer(path, name, run, metadata)
  raise UserError(
    f'{path} cannot be read ({"; ".join(reasons)}): copy or export it again, '
    'or install the newest onnxruntime'
  )


Run = Callable[[dict[str, np.ndarray]], np.ndarray]


def import_openvino() -> Any:
  """OpenVINO, without the telemetry that it would send when imported."""
  modules: dict[str, Any] = sys.modules
  modules.setdefault('openvino_telemetry', None)
  import openvino

  return openvino


def load_openvino(path: Path) -> tuple[Run, Mapping[str, str]]:
  """(function of the inputs by name, the file's metadata)."""
  core = import_openvino().Core()
  model = core.read_model(path)
  info = model.get_rt_info(['framework', METADATA_KEY])
  compiled = core.compile_model(
    # bfloat16, which some CPUs would take, is not what was trained.
    model,
    'CPU',
    {'INFERENCE_PRECISION_HINT': 'f32'},
  )
  return lambda feeds: compiled(feeds)[0], {METADATA_KEY: info.astype(str)}


def load_onnxruntime(path: Path) -> tuple[Run, Mapping[str, str]]:
  """(function of the inputs by name, the file's metadata)."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # Errors.
  session = onnxruntime.InferenceSession(
    str(path), options, providers=['CPUExecutionProvider']
  )
  return (
    lambda feeds: session.run(None, feeds)[0],
    session.get_modelmeta().custom_metadata_map,
  )


def has_vnni() -> bool:
  """Whether this processor adds products of bytes in 32 bits.

  ARM's all do. x86 ones do with VNNI; without, pairs of unsigned times signed
  bytes are added in 16 bits, which saturate. Where the system does not tell
  (only Linux does), the answer is no.
  """
  if platform.machine().lower() not in ('x86_64', 'amd64'):
    return True
  try:
    words = _CPU_INFO.read_text().split()
  except OSError:
    return False
  return not {'avx512_vnni', 'avx_vnni'}.isdisjoint(words)


_LOADERS = {'openvino': load_openvino, 'onnxruntime': load_onnxruntime}


def onnx_drawer(
  path: Path, runtime: str, run: Run, metadata: Mapping[str, str]
) -> Drawer:
  """A drawer from a loaded ONNX file."""
  try:
    record = json.loads(metadata[METADATA_KEY])
    latent_dim, num_classes = record['latent_dim'], record['num_classes']
    description = str(record['description'])
    # Files of earlier versions do not say.
    needs_vnni = record.get('needs_vnni', record.get('integer'))
    if type(latent_dim) is not int or type(num_classes) is not int:
      raise TypeError(f'latent_dim={latent_dim!r}, num_classes={num_classes!r}')
  except (LookupError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} is an ONNX file, but not one that qgan_jax exported ({error!r})'
    ) from None

  if needs_vnni and not has_vnni():
    logging.warning(
      '%s may draw wrong images here: it needs a processor with VNNI, and this '
      'one shows none; export it again with --format=onnx',
      path,
    )

  def draw(latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    feeds = {'latents': latents}
    if labels is not None:
      feeds['labels'] = labels.astype(np.int64)
    return run(feeds)

  return Drawer(draw, latent_dim, num_classes, runtime, description)
