"""Opens files of any format for drawing, with the fastest runtime.

JAX is imported only if a file needs it, as .qgan files do.
"""

from collections.abc import Sequence
import dataclasses
import importlib.util
import os
from pathlib import Path
import platform
import struct
from typing import Any

from absl import logging
import numpy as np

from qgan_jax.artifacts.described import check_signature
from qgan_jax.artifacts.drawer import (
  checked_inputs,
  class_names_of,
  Drawer,
  fitting_of,
  image_shape_of,
  is_image,
  no_images,
  not_from_latents,
)
from qgan_jax.artifacts.onnx_file import read_onnx
from qgan_jax.artifacts.program import (
  MEMORY,
  MEMORY_PER_BYTE,
  Program,
  ProgramError,
  TIME_LIMIT,
)
from qgan_jax.artifacts.stablehlo_file import read_stablehlo
from qgan_jax.errors import UserError

# By format, the fastest first.
RUNTIMES = {
  'packed': ('jax',),
  'stablehlo': ('jax',),
  'onnx': ('openvino', 'onnxruntime'),
  'tflite': ('litert',),
}
_CPU_INFO = Path('/proc/cpuinfo')


def open_drawer(
  path: str | os.PathLike[str],
  runtime: str | None = None,
  *,
  seconds: float = TIME_LIMIT,
) -> Drawer:
  """Opens a file for drawing. The format is recognized by the content.

  Programs in formats other than .qgan run in a separate process.

  Args:
    path: of a .qgan, .onnx, .tflite or .stablehlo file.
    runtime: one of `RUNTIMES` for that format; None for the fastest one that is
      installed and can read the file.
    seconds: time limit of a program for one batch, and for compiling before it.

  Raises:
    UserError: the file cannot be read, or the runtime is not installed or
      cannot read it.
  """
  path = Path(path)
  drawer = _open(path, runtime, seconds)

  def draw(latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    images = drawer.draw(latents, labels)
    if not np.isfinite(images).all():
      raise UserError(
        f'{path} draws values that are not finite: it is damaged, or its '
        'training diverged'
      )
    return images

  return dataclasses.replace(drawer, draw=draw)


def _open(path: Path, runtime: str | None, seconds: float) -> Drawer:
  kind = _kind(path)
  if runtime is not None and runtime not in RUNTIMES[kind]:
    raise UserError(
      f'--runtime={runtime}: {path} is {kind}, which runs in '
      + ' or '.join(RUNTIMES[kind])
    )
  if kind == 'packed':
    return _open_packed(path)
  if kind == 'stablehlo':
    record, content = read_stablehlo(path)
    return _open_program(path, ('jax',), record, content, 'int32', seconds)
  if kind == 'tflite':
    return _open_tflite(path, seconds)
  return _open_onnx(path, runtime, seconds)


def _kind(path: Path) -> str:
  try:
    with open(path, 'rb') as file:
      start = file.read(16)
  except OSError as error:
    raise UserError(
      f'cannot read {path}: {error.strerror or error}; give the path of a '
      '.qgan, .onnx, .tflite or .stablehlo file'
    ) from error
  if start[4:8] == b'TFL3':
    return 'tflite'
  if start[8:9] == b'{':  # Of safetensors, behind the length of its header.
    return 'packed'
  if start[:4] == b'PK\3\4':
    return 'stablehlo'
  # What begins a protocol buffer of ONNX: the version of its format, a varint.
  if start[:1] == b'\x08':
    return 'onnx'
  raise UserError(
    f'{path} is not a whole .qgan, .onnx, .tflite or .stablehlo file: copy or '
    'export it again'
  )


def _open_packed(path: Path) -> Drawer:
  from qgan_jax.artifacts.inference import (
    describe,
    images,
    images_of,
    latents_of,
    memory_of,
    outputs_of,
  )
  from qgan_jax.artifacts.packed import read

  artifact = read(path)
  network = artifact.network
  latents, input_shape = latents_of(network), images_of(network)
  if latents is None and input_shape is None:
    raise not_from_latents(path, [x.shape for x in network.inputs or ()])
  outputs = outputs_of(network)
  if not is_image(outputs):
    raise no_images(path, outputs)
  needed = memory_of(network)
  most = MEMORY + MEMORY_PER_BYTE * path.stat().st_size
  if needed > most:
    raise UserError(
      f'{path} takes {needed >> 20} MiB to draw, and its size allows for '
      f'{most >> 20}: call it in Python, if you trust it'
    )
  latent_dim, num_classes = latents or (0, 0)
  return Drawer(
    lambda latents, labels: images(network, latents, labels),
    latent_dim,
    num_classes,
    'jax',
    describe(network),
    class_names_of(artifact.metadata, num_classes),
    input_shape,
    fitting_of(artifact.metadata),
  )


def _open_onnx(path: Path, runtime: str | None, seconds: float) -> Drawer:
  try:
    content = path.read_bytes()
    record = read_onnx(content)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except (LookupError, ValueError) as error:
    raise UserError(
      f'{path} is not a whole ONNX file that qgan_jax exported ({error}): copy '
      'or export it again'
    ) from None
  choices = (runtime,) if runtime else RUNTIMES['onnx']
  # A graph made for ONNX Runtime; OpenVINO draws the same from it.
  if record.get('form') == 'gathered':
    choices = choices[::-1]
  installed = [name for name in choices if importlib.util.find_spec(name)]
  if not installed:
    extra = 'openvino' if runtime == 'openvino' else 'onnx'
    raise UserError(
      f'to draw from {path}, install {" or ".join(choices)}: '
      f"pip install 'qgan_jax[{extra}]'"
    )
  if record.get('needs_vnni') and not has_vnni():
    logging.warning(
      '%s may draw wrong images here: it needs a processor with VNNI, and this '
      'one shows none; export it again with --format=onnx',
      path,
    )
  return _open_program(path, installed, record, content, 'int64', seconds)


def _open_tflite(path: Path, seconds: float) -> Drawer:
  from qgan_jax.artifacts.tflite_file import read_tflite

  try:
    content = path.read_bytes()
    record = read_tflite(content)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  # Flatbuffers are read by offsets, which may lead anywhere.
  except (ArithmeticError, AttributeError, LookupError, struct.error, TypeError,
          ValueError) as error:  # fmt: skip
    raise UserError(
      f'{path} is not a whole LiteRT file that qgan_jax exported ({error}): '
      'copy or export it again'
    ) from None
  return _open_program(path, ('litert',), record, content, 'int32', seconds)


def _open_program(
  path: Path,
  runtimes: Sequence[str],
  record: dict[str, Any],
  content: bytes,
  label: str,
  seconds: float,
) -> Drawer:
  """A drawer from the first runtime that can read a program.

  Args:
    path: of the file, to be named.
    runtimes: to be tried, in this order.
    record: what the file says of the program.
    content: the program.
    label: dtype of a label in files of this format.
    seconds: that it may take for a batch.
  """
  shapes = [shape for shape, _ in record.get('inputs', [])]
  input_shape = None
  if record['latent_dim'] is None:
    input_shape = image_shape_of(shapes)
    if input_shape is None:
      raise not_from_latents(path, shapes)
  reasons = []
  for name in runtimes:
    try:
      program = Program(name, content, seconds)
      check_signature(record, program.signature, label)
    except (ProgramError, ValueError) as error:
      reasons.append(f'{name}: {error}')
      continue
    outputs = [program.signature.output]
    if not is_image(outputs):
      raise no_images(path, outputs)

    def draw(
      latents: np.ndarray,
      labels: np.ndarray | None,
      program: Program = program,
    ) -> np.ndarray:
      inputs = checked_inputs(
        [x for x in (latents, labels) if x is not None],
        program.signature.inputs,
        record['num_classes'] or 0,
      )
      try:
        return program(*inputs)
      except ProgramError as error:
        raise UserError(
          f'the program in {path} does not run ({error}): copy or export it '
          'again'
        ) from None

    return Drawer(
      draw,
      record['latent_dim'] or 0,
      record['num_classes'] or 0,
      name,
      record['description'],
      class_names_of(record.get('metadata'), record['num_classes']),
      input_shape,
      fitting_of(record.get('metadata')),
    )
  raise UserError(
    f'{path} cannot be read ({"; ".join(reasons)}): copy or export it again, '
    'or install the newest runtime'
  )


def has_vnni() -> bool:
  """Whether this processor adds products of bytes in 32 bits.

  All ARM processors do. x86 processors do if they have VNNI; others add pairs
  of unsigned times signed bytes in 16 bits, which saturate. If the system does
  not tell (only Linux does), the answer is no.
  """
  if platform.machine().lower() not in ('x86_64', 'amd64'):
    return True
  return not {'avx512_vnni', 'avx_vnni'}.isdisjoint(instructions())


def instructions() -> set[str]:
  """What Linux says about this processor, as words; empty on other systems."""
  try:
    return {*_CPU_INFO.read_text().split()}
  except OSError:
    return set()
