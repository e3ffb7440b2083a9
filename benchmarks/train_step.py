"""Times one training step against PyTorch and plain Flax, in one run.

  python benchmarks/train_step.py --out=benchmarks/results

Every contestant trains the same networks from the same parameters on the same
batch of 64 digits: DCGAN, non-saturating loss, one update of D and one of G,
Adam, a moving average of G. Outputs are compared before anything is timed.
Contestants take turns, but that alone is not fair on a busy machine: PyTorch's
threads spin while they wait, and lose far more than ours when other processes
want the cores. Their share is measured, and a result that it spoils is marked.
"""

import argparse
import importlib.util
import os
from pathlib import Path
import statistics
from typing import Any

# PyTorch needs room on the same GPU.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import contestants
import jax
from measuring import (
  foreign_share,
  save,
  say,
  say_whether_comparable,
  start_record,
  take_turns,
  TURN,
  warmed,
)
from rich.table import Table

from qgan_jax import data
from qgan_jax.training.allocator import keep_freed_memory

FLOAT, TORCH, DOT = 'qgan_jax float', contestants.TORCH, 'dot'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch')


def run_case(
  size: int, channels: int, args: argparse.Namespace
) -> dict[str, Any]:
  """Builds, checks and times all contestants at one size and width."""
  dataset = data.load(
    'digits', data_dir=None, image_size=size, channels=1, standin=False
  )
  images = dataset.train_images[: contestants.BATCH_SIZE]
  ours = contestants.Ours(dataset, channels, 32, args.dtype)
  dot, dot_flops = contestants.make_dot(args.dtype)
  steps = {
    DOT: dot,
    FLOAT: ours.step,
    'qgan_jax W8A8': contestants.Ours(
      dataset, channels, 8, args.dtype, learned=True
    ).step,
    'qgan_jax W8A8 min-max': contestants.Ours(
      dataset, channels, 8, args.dtype
    ).step,
    'plain Flax': contestants.flax_step(ours, images, channels, args.dtype),
  }
  if importlib.util.find_spec('torch'):
    steps |= contestants.torch_steps(
      ours, images, channels, args.dtype, compiled=args.torch_compile
    )
  ready = warmed(steps)
  case: dict[str, Any] = {'image_size': size, 'channels': channels}
  with foreign_share(case):
    times = take_turns(ready, args.rounds)
  dot_rate = dot_flops / statistics.median(times.pop(DOT))

  best: dict[str, dict[str, Any]] = {}
  for name, seconds in times.items():
    contestant, _, layout = name.partition(', ')
    row: dict[str, Any] = {
      'median_ms': 1e3 * statistics.median(seconds),
      'min_ms': 1e3 * min(seconds),
    }
    if layout:
      row['layout'] = layout
    rival = best.get(contestant)
    if rival is None or row['median_ms'] < rival['median_ms']:
      best[contestant] = row
  flops = contestants.step_flops(size, channels)
  for row in best.values():
    row['share_of_dot'] = flops / (1e-3 * row['median_ms']) / dot_rate
    row['to_float'] = row['median_ms'] / best[FLOAT]['median_ms']
    if TORCH in best:
      row['to_torch'] = row['median_ms'] / best[TORCH]['median_ms']
  return case | {
    'parameters': sum(x.size for x in jax.tree.leaves(ours.params)),
    'step_gflop': flops / 1e9,
    'dot_gflop_per_s': dot_rate / 1e9,
    'data': ours.data_cost(args.rounds * TURN),
    'contestants': best,
  }


def print_cases(cases: list[dict[str, Any]]) -> None:
  """Prints the cases as one table, and what data costs."""
  table = Table(caption='ratios of medians; below 1 is faster')
  table.add_column('images')
  table.add_column('step')
  for title in (
    'median ms',
    'min ms',
    f'to {TORCH}',
    'to our float',
    "of the dot's rate",
  ):
    table.add_column(title, justify='right')
  for case in cases:
    title = f'{case["image_size"]}² × {case["channels"]} channels'
    for name, row in case['contestants'].items():
      layout = f', {row["layout"]}' if 'layout' in row else ''
      to_torch = f'{row["to_torch"]:.2f}' if 'to_torch' in row else ''
      table.add_row(
        title,
        name + layout,
        f'{row["median_ms"]:.1f}',
        f'{row["min_ms"]:.1f}',
        to_torch,
        f'{row["to_float"]:.2f}',
        f'{row["share_of_dot"]:.0%}',
      )
      title = ''
    table.add_section()
  say(table)
  for case in cases:
    cost = case['data']
    say(
      f'{case["image_size"]}² × {case["channels"]}: a step is '
      f'{case["step_gflop"]:.1f} GFLOP, a dot runs at '
      f'{case["dot_gflop_per_s"]:.0f} GFLOP/s; data takes the host '
      f'{cost["host_ms"]:.2f} ms a step, {cost["host_share"]:.2%} of it; '
      f'the device waits for it {cost["exposed_share"]:.2%} of the time'
    )
    say_whether_comparable(case)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--sizes', type=int, nargs='+', default=[28, 32])
  parser.add_argument('--channels', type=int, nargs='+', default=[32, 64])
  parser.add_argument('--rounds', type=int, default=15, help=f'{TURN} steps')
  parser.add_argument('--dtype', default='float32', help='or bfloat16')
  parser.add_argument(
    '--torch-compile',
    action=argparse.BooleanOptionalAction,
    default=True,
    help='whether torch.compile takes part; it compiles for minutes',
  )
  parser.add_argument(
    '--quick',
    action='store_true',
    help='28×28, 32 channels, 2 rounds, no torch.compile: does it run?',
  )
  parser.add_argument(
    '--allocator',
    choices=['keep', 'default'],
    default='keep',
    help='whether freed memory is kept for the next step, as in training',
  )
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  if args.allocator == 'keep':
    keep_freed_memory()
  if args.quick:
    args.sizes, args.channels, args.rounds = [28], [32], 2
    args.torch_compile = False
  record = start_record(
    PACKAGES,
    dtype=args.dtype,
    batch_size=contestants.BATCH_SIZE,
    rounds=args.rounds,
    allocator=args.allocator,
  )
  record['cases'] = cases = []
  for size in args.sizes:
    for channels in args.channels:
      cases.append(run_case(size, channels, args))
      # After every case, so that an interrupted benchmark keeps the others.
      name = 'train_step' + '-bfloat16' * (args.dtype == 'bfloat16')
      save(record, args.out, name)
  print_cases(cases)


if __name__ == '__main__':
  main()
