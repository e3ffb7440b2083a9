"""Times drawing from every artifact against float and other quantizers.

  python benchmarks/deploy.py --out=benchmarks/results

One generator, random and calibrated, is drawn from as float in JAX, ONNX
Runtime, OpenVINO and PyTorch; as ONNX Runtime's own `quantize_static` makes
it; and from our files, in each runtime that reads them. Images are compared
before anything is timed; contestants take turns, as in `train_step.py`. A
process of its own then draws one image from each file, as a person would: its
wall time is the cold start. Bytes of files are counted whole.
"""

import argparse
from collections.abc import Mapping
import itertools
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import deployed
import jax
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

from qgan_jax.artifacts.drawer import latents
from qgan_jax.artifacts.runtimes import import_openvino

PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'onnxruntime', 'openvino',
            'onnx', 'ai-edge-litert', 'torch')  # fmt: skip
BASELINE = 'float, ONNX Runtime'
FLOAT_DOT, INTEGER_DOT = 'dot, float32', 'dot, int8'


def dots() -> tuple[dict[str, Step], int]:
  """Products of square matrices, float in JAX and int8 in ONNX Runtime."""
  import onnx
  from onnx import helper, TensorProto
  import onnxruntime

  n = 1024
  x = jax.random.normal(jax.random.PRNGKey(0), (n, n))
  product = jax.jit(jax.numpy.dot)
  graph = helper.make_graph(
    [helper.make_node('MatMulInteger', ['a', 'b'], ['y'])],
    'dot',
    [helper.make_tensor_value_info('a', TensorProto.UINT8, [n, n])],
    [helper.make_tensor_value_info('y', TensorProto.INT32, [n, n])],
    [onnx.numpy_helper.from_array(np.ones((n, n), np.int8), 'b')],
  )
  model = helper.make_model(
    graph, ir_version=10, opset_imports=[helper.make_opsetid('', 21)]
  )
  session = onnxruntime.InferenceSession(model.SerializeToString())
  a = np.ones((n, n), np.uint8)
  return {
    FLOAT_DOT: lambda: jax.block_until_ready(product(x, x)),
    INTEGER_DOT: lambda: session.run(None, {'a': a}),
  }, 2 * n**3


def bandwidth() -> float:
  """Bytes per second that one copy in memory reads and writes."""
  source = np.ones(2**25, np.float32)
  target = np.empty_like(source)
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    np.copyto(target, source)
    seconds.append(time.perf_counter() - start)
  return 2 * source.nbytes / min(seconds)


_SAMPLE = """
import runpy, sys
try:
  runpy.run_module('qgan_jax.sample', run_name='__main__', alter_sys=True)
except SystemExit as stop:
  if stop.code: raise
with open('/proc/self/status') as file:
  print(next(line.split()[1] for line in file if line.startswith('VmHWM')))
"""


def cold_start(path: Path, runtime: str) -> dict[str, float]:
  """A new process that draws one image: its seconds and its peak memory."""
  with tempfile.TemporaryDirectory() as folder:
    command = [
      sys.executable, '-c', _SAMPLE, f'--artifact={path}', '--num=1',
      f'--runtime={runtime}', f'--out={folder}/x.png',
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
  # VmHWM starts with the program; getrusage would include the parent's peak.
  kilobytes = int(done.stdout.splitlines()[-1])
  return {'cold_start_s': seconds, 'peak_mb': kilobytes / 1024}


def check(draws: Mapping[str, deployed.Draw]) -> dict[str, float]:
  """Mean distance to the float images, in grey levels; exits if too large."""
  z = latents(2, 0, deployed.LATENT_DIM)
  expected = draws['float, JAX'](z)
  distances = {}
  for name, draw in draws.items():
    off = 127.5 * np.abs(draw(z) - expected)
    distances[name] = float(off.mean())
    if 'float' in name or 'orch' in name:
      if off.max() > 0.1:
        sys.exit(f'{name} is another network: {off.max():.2g} grey levels')
    # Below 8 bits, a random network's images do differ that much.
    elif 'W' not in name and off.mean() > 10:
      sys.exit(f'{name} is another network: {off.mean():.2g} grey levels')
  return distances


def run_case(
  model: str,
  size: int,
  channels: int,
  norm: str,
  args: argparse.Namespace,
  folder: Path,
) -> list[dict[str, Any]]:
  """Builds, checks and times all contestants; a record for each batch."""
  network = deployed.Network(model, size, channels, norm, folder)
  draws = deployed.draws(network, compiled=not args.quick)
  distances = check(draws)
  files = network.files()
  starts = {}
  if norm == args.norms[0] and channels == args.channels[0]:
    for name in ('packed, JAX', 'StableHLO, JAX', 'int8, OpenVINO',
                 'int8, ONNX Runtime', 'int8, LiteRT'):  # fmt: skip
      runtime = name.split(', ')[1].replace(' ', '').lower()
      starts[name] = cold_start(files[name], runtime)
  sizes = {name: path.stat().st_size for name, path in files.items()}
  sizes |= {
    BASELINE: network.float_path.stat().st_size,
    'float, OpenVINO': network.float_path.stat().st_size,
    'float, LiteRT': network.float_tflite.stat().st_size,
    deployed.QUANTIZE_STATIC: (
      folder / 'quantize_static.onnx'
    ).stat().st_size,
    'float, JAX': network.float_bytes,
  }  # fmt: skip
  macs = deployed.macs(network.plan)
  cases = []
  for batch in args.batches:
    dot_steps, dot_flops = dots()
    ready = warmed(
      dot_steps
      | {name: deployed.step(draw, batch) for name, draw in draws.items()}
    )
    case: dict[str, Any] = {
      'model': model,
      'image_size': size,
      'channels': channels,
      'norm': norm,
      'batch': batch,
      'float_bytes': network.float_bytes,
      'mac_per_image': macs,
      # Bit operations of a multiply-add: bits of weights × of activations.
      'bit_operations_per_image': {
        f'W{w}A{a}': macs * w * a
        for w, a in ((32, 32), *((bits, 8) for bits in deployed.BITS))
      },
      'bytes_of_files': sizes,
      'bytes_per_s': bandwidth(),
    }
    with foreign_share(case):
      times = take_turns(ready, args.rounds)
    rates = {
      name: dot_flops / statistics.median(times.pop(name)) for name in dot_steps
    }
    case['dot_gflop_per_s'] = {k: v / 1e9 for k, v in rates.items()}
    rows: dict[str, Any] = {}
    for name, seconds in times.items():
      row = {
        'median_ms': 1e3 * statistics.median(seconds),
        'min_ms': 1e3 * min(seconds),
        'grey_levels_from_float': distances[name],
        **starts.get(name, {}),
      }
      title, _, layout = name.partition(', ')
      if layout in ('contiguous', 'channels_last'):
        row['layout'], name = layout, title
      if name not in rows or row['median_ms'] < rows[name]['median_ms']:
        rows[name] = row
    for name, row in rows.items():
      integer = 'int8' in name or 'A8' in name
      rate = rates[INTEGER_DOT if integer else FLOAT_DOT]
      moved = deployed.traffic(network.plan, batch, 1 if integer else 4)
      least = max(2 * macs * batch / rate, moved / case['bytes_per_s'])
      row['images_per_s'] = batch / (1e-3 * row['median_ms'])
      row['to_baseline'] = rows[BASELINE]['median_ms'] / row['median_ms']
      row['of_roofline'] = least / (1e-3 * row['median_ms'])
    case['contestants'] = rows
    cases.append(case)
    print_case(case)
  return cases


def print_case(case: dict[str, Any]) -> None:
  """Prints one case as a table."""
  title = (
    f'{case["model"]}, {case["image_size"]}² × {case["channels"]} channels, '
    f'{case["norm"]} '
    f'norm, batch {case["batch"]}: {case["mac_per_image"] / 1e6:.1f} M '
    'multiply-adds an image'
  )
  table = Table(title=title, caption=f'×: throughput of {BASELINE}')
  for column in ('', 'median ms', 'min ms', 'images/s', '×', 'of roofline',
                 'kB on disk', 'smaller', 'cold s', 'peak MB'):  # fmt: skip
    table.add_column(column, justify='right' if column else 'left')
  for name, row in case['contestants'].items():
    size = case['bytes_of_files'].get(name)
    table.add_row(
      name,
      f'{row["median_ms"]:.2f}',
      f'{row["min_ms"]:.2f}',
      f'{row["images_per_s"]:.0f}',
      f'{row["to_baseline"]:.2f}',
      f'{row["of_roofline"]:.0%}',
      f'{size / 1e3:.0f}' if size else '',
      f'{case["float_bytes"] / size:.2f}' if size else '',
      f'{row["cold_start_s"]:.2f}' if 'cold_start_s' in row else '',
      f'{row["peak_mb"]:.0f}' if 'peak_mb' in row else '',
    )
  say(table)
  say_whether_comparable(case)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--models', nargs='+', default=['dcgan'],
                      choices=['dcgan', 'resnet'])  # fmt: skip
  parser.add_argument('--sizes', type=int, nargs='+', default=[28, 32, 64])
  parser.add_argument('--channels', type=int, nargs='+', default=[64, 128])
  parser.add_argument('--norms', nargs='+', default=['group', 'batch'])
  parser.add_argument('--batches', type=int, nargs='+', default=[1, 64])
  parser.add_argument('--rounds', type=int, default=7, help='3 draws each')
  parser.add_argument(
    '--quick',
    action='store_true',
    help='28×28, 64 channels, 2 rounds, no torch.compile: does it run?',
  )
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  if args.quick:
    args.sizes, args.channels, args.rounds = [28], [64], 2
  import_openvino()
  record = start_record(PACKAGES, rounds=args.rounds)
  record['cases'] = []
  cases = itertools.product(args.models, args.sizes, args.channels, args.norms)
  for case in cases:
    with tempfile.TemporaryDirectory() as folder:
      record['cases'] += run_case(*case, args, Path(folder))
    save(record, args.out, 'deploy')


if __name__ == '__main__':
  main()
