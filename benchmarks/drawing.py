"""Times what trained runs deliver: in which runtime does each draw fastest?

  python benchmarks/drawing.py runs/sweep-…/* --out=benchmarks/results

The artifact of each run is exported to the formats that hold it, and drawn from
in every runtime that reads them: 64 images at once and one by itself, by turns.
Images are those of the runtime; nothing is compared here, see `parity.py`.
"""

import argparse
from pathlib import Path
import statistics
import tempfile
from typing import Any

from exported import exported
from measuring import (
  foreign_share,
  save,
  say,
  say_whether_comparable,
  start_record,
  Step,
  take_turns,
  warmed,
)
import numpy as np
from rich.table import Table

from qgan_jax.artifacts.drawer import Drawer, latents
from qgan_jax.errors import UserError

PACKAGES = ('jax', 'onnxruntime', 'openvino', 'ai-edge-litert')
FORMATS = ('onnx', 'onnx-vnni', 'onnx-float', 'tflite', 'tflite-float')
BATCHES = (64, 1)


def step(drawer: Drawer, batch: int) -> Step:
  """Draws the same batch: of latents, or of images where it takes them."""
  if drawer.input_shape is None:
    inputs = latents(0, 0, drawer.latent_dim)[:batch]
  else:
    shape = (batch, *drawer.input_shape)
    inputs = np.random.default_rng(0).uniform(-1, 1, shape).astype('f')
  labels = None
  if drawer.num_classes:
    labels = np.arange(batch, dtype=np.int32) % drawer.num_classes
  return lambda: drawer.draw(inputs, labels)


def run_case(workdir: Path, rounds: int) -> dict[str, Any]:
  """Times all that draws from one run's artifact."""
  (artifact,) = sorted(workdir.glob('*.qgan'))
  case: dict[str, Any] = {
    'run': workdir.name,
    'bytes': artifact.stat().st_size,
    'median_ms': {},
  }
  with tempfile.TemporaryDirectory() as folder:
    found = {}
    for title, drawer in exported(artifact, FORMATS, Path(folder)):
      if isinstance(drawer, UserError):
        say(f'{title} is left out: {drawer}')
      else:
        found[title] = drawer
    with foreign_share(case):
      for batch in BATCHES:
        steps = {name: step(drawer, batch) for name, drawer in found.items()}
        times = take_turns(warmed(steps), rounds)
        case['median_ms'][batch] = {
          name: 1e3 * statistics.median(each) for name, each in times.items()
        }
  return case


def print_cases(cases: list[dict[str, Any]]) -> None:
  """Prints the fastest of each run, and the fastest in float."""
  table = Table(title='milliseconds in the fastest format and runtime')
  columns = [
    name for batch in BATCHES for name in (f'{batch}, ms', 'in', 'float, ms')
  ]
  for name in ('run', 'bytes', *columns):
    table.add_column(name, justify='left' if name in ('run', 'in') else 'right')
  for case in cases:
    row = [case['run'], f'{case["bytes"]:,}']
    for times in case['median_ms'].values():
      fastest = min(times, key=times.__getitem__)
      in_float = min(ms for name, ms in times.items() if '-float' in name)
      row += [f'{times[fastest]:.2f}', fastest, f'{in_float:.2f}']
    table.add_row(*row)
  say(table)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('workdirs', type=Path, nargs='+', metavar='RUN')
  parser.add_argument('--rounds', type=int, default=5, help='3 draws each')
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  record = start_record(PACKAGES, rounds=args.rounds)
  record['cases'] = []
  # Other files lie beside the runs of a sweep.
  for workdir in (path for path in args.workdirs if path.is_dir()):
    record['cases'].append(run_case(workdir, args.rounds))
    say_whether_comparable(record['cases'][-1])
    save(record, args.out, 'drawing')
  print_cases(record['cases'])


if __name__ == '__main__':
  main()
