r"""Exports a trained generator to the formats that it is drawn from.

  python -m qgan_jax.export --workdir=runs/mnist/bits=8-s0 \
      --format=packed,onnx,stablehlo
  python -m qgan_jax.export --artifact=generator.qgan --format=onnx --out=web/

Files go to --out, which is the run's folder, or the artifact's, and are named
like the artifact, `decoder.qgan` for a VAE's:

  packed      generator.qgan             codes, bit by bit; drawn from in JAX
  onnx        generator-openvino.onnx    integers, for OpenVINO
              generator-onnxruntime.onnx integers, for ONNX Runtime
  onnx-vnni   generator-openvino-vnni.onnx     the same, up to twice as fast,
              generator-onnxruntime-vnni.onnx  for processors with VNNI
  onnx-float  generator-float.onnx       weights rounded, arithmetic in float
  tflite      generator.tflite           integers, for LiteRT on a phone
  tflite-float  generator-float.tflite   weights rounded, arithmetic in float
  stablehlo   generator.stablehlo        a program for JAX, without this package
  web         generator.html             a page that draws in a browser, offline

x86 processors without VNNI draw wrong images from the files of `onnx-vnni`;
`sample` warns of that.
`web` needs ONNX Runtime Web, from npm or from the folder --ort_web.
What a format cannot say of a generator is refused by name.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from qgan_jax import errors
from qgan_jax.artifacts.drawing import open_drawer, TIME_LIMIT
from qgan_jax.artifacts.formats import export, FORMATS, PAGE
from qgan_jax.artifacts.gallery import path_of
from qgan_jax.artifacts.inference import images_of, latents_of
from qgan_jax.artifacts.packed import read
from qgan_jax.errors import UserError


def main(argv: Sequence[str]) -> None:
  """Exports, and prints the files; see the module's docstring."""
  values = flags.FlagValues()
  errors.define_path('workdir', 'The folder of a run.', values)
  errors.define_path('artifact', 'A .qgan file instead.', values)
  errors.define_module(values)
  flags.DEFINE_list('format', ['onnx'], ', '.join(FORMATS), flag_values=values)
  errors.define_path('out', 'A folder; that of the source.', values)
  errors.define_path(
    'ort_web', "A folder with ONNX Runtime Web, its npm package's dist.", values
  )
  errors.define_time_limit(TIME_LIMIT, values)
  # Keeps what JAX says of backends that it did not find from the person.
  flags.FLAGS['verbosity'].value = logging.WARNING
  errors.parse_flags(argv, values, __doc__)
  if bool(values.workdir) == bool(values.artifact):
    raise UserError('give --workdir=FOLDER of a run, or --artifact=FILE.qgan')
  if values.workdir:
    # Named for the network that the run delivers.
    found = sorted(Path(values.workdir).glob('*.qgan'))
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
  drawn = latents_of(network) or images_of(network)
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
