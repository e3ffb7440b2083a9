r"""Exports a trained generator to the formats that it is drawn from.

  python -m qgan_jax.export --workdir=runs/mnist/bits=8-s0 \
      --format=packed,onnx,stablehlo
  python -m qgan_jax.export --artifact=generator.qgan --format=onnx --out=web/

Files go to --out, which is the run's folder, or the artifact's:

  packed      generator.qgan             codes, bit by bit; drawn from in JAX
  onnx        generator-openvino.onnx    integers, for OpenVINO
              generator-onnxruntime.onnx integers, for ONNX Runtime
  onnx-vnni   generator-openvino-vnni.onnx     the same, up to twice as fast,
              generator-onnxruntime-vnni.onnx  for processors with VNNI
  onnx-float  generator-float.onnx       weights rounded, arithmetic in float
  stablehlo   generator.stablehlo        a program for JAX, without this package
  web         generator.html             a page that draws in a browser, offline

x86 processors without VNNI draw wrong images from the files of `onnx-vnni`;
`sample` warns of that.
`web` needs ONNX Runtime Web, from npm or from the folder --ort_web.
What a format cannot say of a generator is refused by name.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
import sys

from absl import flags, logging

from qgan_jax import errors
from qgan_jax.artifacts.drawing import open_drawer
from qgan_jax.artifacts.files import replacing
from qgan_jax.artifacts.generator import describe, PackedGenerator
from qgan_jax.artifacts.onnx_graphs import onnx_model
from qgan_jax.artifacts.packed import load_generator
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.artifacts.stablehlo import stablehlo_model
from qgan_jax.artifacts.web import web_page
from qgan_jax.errors import UserError

PACKED = 'generator.qgan'
PAGE = 'generator.html'


def _onnx(
  generator: PackedGenerator, *, form: str, integer: bool, split: bool = True
) -> bytes:
  plan = make_plan(generator, integer=integer, split=split)
  description = describe(generator)
  if not integer:
    description = f'{description.partition(",")[0]}, arithmetic in float32'
  return onnx_model(
    plan,
    form,
    {'description': description, 'metadata': generator.metadata},
  )


# Format → {file: its content}; `packed` is a copy, and `web` made of another.
FORMATS: dict[str, dict[str, Callable[[PackedGenerator], bytes]]] = {
  'packed': {},
  'onnx': {
    'generator-openvino.onnx': lambda generator: _onnx(
      generator, form='transposed', integer=True
    ),
    'generator-onnxruntime.onnx': lambda generator: _onnx(
      generator, form='gathered', integer=True
    ),
  },
  'onnx-vnni': {
    'generator-openvino-vnni.onnx': lambda generator: _onnx(
      generator, form='transposed', integer=True, split=False
    ),
    'generator-onnxruntime-vnni.onnx': lambda generator: _onnx(
      generator, form='gathered', integer=True, split=False
    ),
  },
  'onnx-float': {
    'generator-float.onnx': lambda generator: _onnx(
      generator, form='transposed', integer=False
    )
  },
  'stablehlo': {'generator.stablehlo': stablehlo_model},
  'web': {},
}


def export(
  artifact: Path,
  formats: Sequence[str],
  out: Path,
  *,
  ort_web: Path | None = None,
) -> list[Path]:
  """Writes an artifact in other formats.

  Args:
    artifact: a .qgan file.
    formats: names in `FORMATS`.
    out: the folder for the files, made where it is missing.
    ort_web: a folder with ONNX Runtime Web; None to get it with npm.

  Returns:
    The files. Where one format is refused, none is written.

  Raises:
    UserError: for an unknown format, a file that cannot be read or written,
      and a generator that a format cannot hold.
  """
  for name in formats:
    if name not in FORMATS:
      raise UserError(f'--format={name}: one of {", ".join(FORMATS)}')
  generator = load_generator(artifact)
  contents = {
    out / file: make(generator)
    for name in formats
    for file, make in FORMATS[name].items()
  }
  if 'web' in formats:
    model = _onnx(generator, form='gathered', integer=True)
    contents[out / PAGE] = web_page(model, ort_web)
  if 'packed' in formats and out / PACKED != artifact:
    contents[out / PACKED] = artifact.read_bytes()
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--out={out} cannot be a folder: {error.strerror}; name another'
    ) from None
  for path, content in contents.items():
    with replacing(path) as file:
      file.write(content)
  return list(contents)


def main() -> None:
  """Parses the command line and exports; see the module's docstring."""
  flags.FLAGS['verbosity'].value = logging.WARNING
  workdir = flags.DEFINE_string('workdir', None, 'The folder of a run.')
  artifact = flags.DEFINE_string('artifact', None, 'A .qgan file instead.')
  formats = flags.DEFINE_list('format', ['onnx'], ', '.join(FORMATS))
  out = flags.DEFINE_string('out', None, 'A folder; that of the source.')
  ort_web = flags.DEFINE_string(
    'ort_web', None, "A folder with ONNX Runtime Web, its npm package's dist."
  )
  errors.parse_flags(sys.argv)
  if bool(workdir.value) == bool(artifact.value):
    raise UserError('give --workdir=FOLDER of a run, or --artifact=FILE.qgan')
  source = Path(artifact.value or f'{workdir.value}/{PACKED}')
  if workdir.value and not source.exists():
    raise UserError(
      f'{workdir.value} holds no {PACKED}: a run leaves it when it ends; give '
      'the folder of one that has'
    )
  folder = Path(out.value) if out.value else source.parent
  ort_web_folder = Path(ort_web.value) if ort_web.value else None
  for path in export(source, formats.value, folder, ort_web=ort_web_folder):
    where = 'a browser' if path.name == PAGE else open_drawer(path).runtime
    print(f'{path}: {path.stat().st_size:,} bytes, drawn from in {where}')


if __name__ == '__main__':
  errors.run(main)
