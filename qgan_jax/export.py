r"""Exports a trained generator to formats that images can be drawn from.

  python -m qgan_jax.export --workdir=runs/mnist/bits=8-s0 \
      --format=packed,onnx,stablehlo
  python -m qgan_jax.export --artifact=generator.qgan --format=onnx --out=web/

Files go to --out, by default the folder of the run or of the artifact. They are
named like the artifact, which is `decoder.qgan` for a VAE:

  packed      generator.qgan             bit-packed codes, for JAX
  onnx        generator-openvino.onnx    integers, for OpenVINO
              generator-onnxruntime.onnx integers, for ONNX Runtime
  onnx-vnni   generator-openvino-vnni.onnx     the same, up to twice as fast,
              generator-onnxruntime-vnni.onnx  for processors with VNNI
  onnx-float  generator-float.onnx       quantized weights, float arithmetic
  tflite      generator.tflite           integers, for LiteRT on a phone
  tflite-float  generator-float.tflite   quantized weights, float arithmetic
  stablehlo   generator.stablehlo        a program for JAX, without this package
  web         generator.html             a page that draws in a browser, offline

On x86 processors without VNNI, the files of `onnx-vnni` draw wrong images;
`sample` warns of that.
`web` needs ONNX Runtime Web, from npm or from the folder --ort_web.
If a format cannot hold some part of a generator, the export is refused, with
the name of that part.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from qgan_jax import errors
from qgan_jax.artifacts.drawer import is_image
from qgan_jax.artifacts.drawing import open_drawer, TIME_LIMIT
from qgan_jax.artifacts.formats import export, FORMATS, PAGE
from qgan_jax.artifacts.gallery import path_of
from qgan_jax.artifacts.inference import images_of, latents_of, outputs_of
from qgan_jax.artifacts.packed import read
from qgan_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
  """Exports, and prints the files; see the module's docstring."""
  values = flags.FlagValues()
  errors.define_path('workdir', 'Folder of a run.', values)
  errors.define_path('artifact', 'A .qgan file, in place of --workdir.', values)
  errors.define_module(values)
  flags.DEFINE_list(
    'format',
    ['onnx'],
    f'Formats to write, of {", ".join(FORMATS)}.',
    flag_values=values,
  )
  errors.define_path(
    'out',
    'Folder for the files; by default that of the run or artifact.',
    values,
  )
  errors.define_path(
    'ort_web',
    'Folder with ONNX Runtime Web: the folder dist of its npm package.',
    values,
  )
  errors.define_time_limit(TIME_LIMIT, values)
  # Keeps what JAX says of backends that it did not find from the person.
  flags.FLAGS['verbosity'].value = logging.WARNING
  errors.parse_flags(argv, values, __doc__)
  if bool(values.workdir) == bool(values.artifact):
    raise UserError('give --workdir=FOLDER of a run, or --artifact=FILE.qgan')
  if values.ort_web and 'web' not in values.format:
    raise UserError(
      f'--ort_web={values.ort_web} does nothing without --format=web; leave it '
      'out'
    )
  if values.workdir:
    # Named for the network that the run delivers.
    found = sorted(Path(values.workdir).glob('*.qgan'))
    if len(found) > 1:
      names = ', '.join(path.name for path in found)
      raise UserError(
        f'{values.workdir} holds {names}: say which, --artifact=FILE'
      )
    if not found:
      raise UserError(
        f'{values.workdir} holds no .qgan file: a run leaves it when it ends; '
        'give the folder of one that has'
      )
    source = found[0]
  else:
    source = Path(path_of(values.artifact))
    if source != Path(values.artifact) and not values.out:
      raise UserError(
        f'--artifact={values.artifact} lies inside the package: say where the '
        'files go, --out=FOLDER'
      )
  folder = Path(values.out) if values.out else source.parent
  errors.import_module(values.module)
  ort_web = Path(values.ort_web) if values.ort_web else None
  network = read(source).network
  called = latents_of(network) or images_of(network)
  drawn = called and is_image(outputs_of(network))
  for path in export(source, values.format, folder, ort_web=ort_web):
    if path.suffix == PAGE:
      use = 'drawn from in a browser'
    elif drawn:
      drawer = open_drawer(path, seconds=values.time_limit)
      use = f'drawn from in {drawer.runtime}'
    else:
      use = 'to be called with what its network takes'
    print(f'{path}: {path.stat().st_size:,} bytes, {use}')


if __name__ == '__main__':
  errors.run(main)
