"""Compares the images of every artifact of a trained run with the run's own.

  python benchmarks/parity.py runs/mnist/bits=8-s0 --out=benchmarks/results

The reference is the trained network itself: its checkpoint's moving average,
quantized as in training, on the latents that every artifact is given. For each
format and each runtime that reads it: how far pixels are off in grey levels
(of 255), the Fréchet distance of its images to the held-out ones beside that of
the reference, and the one between the two sets of images. A format that cannot
hold the run says why.
"""

import argparse
from pathlib import Path
import tempfile
from typing import Any

from exported import exported
import jax
from measuring import save, say, start_record
import numpy as np
from rich.table import Table

from qgan_jax import artifacts, metrics
from qgan_jax.artifacts.drawer import batches, Drawer
from qgan_jax.artifacts.inference import latents_of
from qgan_jax.config.names import config_string_of
from qgan_jax.errors import UserError
from qgan_jax.precision import Quantized
from qgan_jax.runs import build
from qgan_jax.runs.trained import TrainedRun

PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'onnxruntime', 'openvino',
            'onnx')  # fmt: skip


def trained(network: Quantized) -> Drawer:
  """The run's best state as training draws from it."""
  draw = jax.jit(network.__call__)
  return Drawer(
    lambda latents, labels: np.asarray(draw(latents, labels)),
    *(latents_of(network) or (0, 0)),
    'jax',
    'as trained',
  )


def images(drawer: Drawer, num: int) -> np.ndarray:
  drawn = batches(drawer, num=num, seed=0)
  return np.concatenate([batch for batch, _ in drawn])


def run_case(workdir: Path, samples: int) -> dict[str, Any]:
  """Compares all artifacts of one run."""
  run = TrainedRun(workdir, samples=64, seed=0)
  extractor = build.make_extractor(run.setup.config, run.setup.dataset)
  held_out = extractor.extract(run.setup.dataset.test_images).features
  network = run.sampler.quantized(run.state)
  expected = images(trained(network), samples)
  as_trained = extractor.extract(expected).features
  reference = metrics.frechet_distance(held_out, as_trained)
  rows: dict[str, Any] = {}
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    artifacts.save(folder / 'generator.qgan', network)
    for title, drawer in exported(
      folder / 'generator.qgan', ('stablehlo', 'onnx'), folder
    ):
      if isinstance(drawer, UserError):
        rows[title] = {'refused': str(drawer).replace(f'{folder}/', '')}
        continue
      drawn = images(drawer, samples)
      off = np.abs(drawn.astype(np.int16) - expected)
      features = extractor.extract(drawn).features
      found = metrics.frechet_distance(held_out, features)
      rows[title] = {
        'worst': int(off.max()),
        'mean': float(off.mean()),
        'equal': float((off == 0).mean()),
        'within_1': float((off <= 1).mean()),
        'frechet': found,
        'to_reference': found / reference,
        'between': metrics.frechet_distance(as_trained, features),
      }
  return {
    'run': workdir.name,
    'config': config_string_of(run.setup.config),
    'step': int(run.state.step),
    'samples': samples,
    'frechet_as_trained': reference,
    'artifacts': rows,
  }


def print_case(case: dict[str, Any]) -> None:
  table = Table(
    title=f'{case["config"]}, step {case["step"]}: Fréchet distance '
    f'{case["frechet_as_trained"]:.3f} as trained, {case["samples"]} images'
  )
  for column in ('', 'worst', 'mean', 'equal', 'within 1', 'Fréchet', '×',
                 'between'):  # fmt: skip
    table.add_column(column, justify='right' if column else 'left')
  for title, row in case['artifacts'].items():
    if 'refused' in row:
      table.add_row(title, row['refused'])
      continue
    table.add_row(
      title,
      str(row['worst']),
      f'{row["mean"]:.4f}',
      f'{row["equal"]:.2%}',
      f'{row["within_1"]:.2%}',
      f'{row["frechet"]:.3f}',
      f'{row["to_reference"]:.4f}',
      f'{row["between"]:.4f}',
    )
  say(table)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('workdirs', type=Path, nargs='+', metavar='RUN')
  parser.add_argument('--samples', type=int, default=10_000)
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  record = start_record(PACKAGES)
  record['cases'] = []
  for workdir in args.workdirs:
    record['cases'].append(run_case(workdir, args.samples))
    print_case(record['cases'][-1])
    save(record, args.out, 'parity')


if __name__ == '__main__':
  main()
