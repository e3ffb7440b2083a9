"""Times a sweep of bit widths: one after another, and as one program.

  python benchmarks/sweep.py --out=benchmarks/results

The same trials twice, in turns: each by a program of its own, traced and
compiled for it alone, as commands one after another would; and all of them by
one program in which bit widths are arrays, laid out as `qgan_jax.population`
does on this hardware. Compile time is that of the first call, tracing
included, without the step itself.
"""

import argparse
from pathlib import Path
import statistics
import time
from typing import Any

import jax
from measuring import (
  foreign_share,
  save,
  say,
  say_whether_comparable,
  start_record,
)
from rich.table import Table

from qgan_jax import config as config_lib
from qgan_jax import data
from qgan_jax.runs import build
from qgan_jax.runs.shared import shared_config
from qgan_jax.training import devices, loop
from qgan_jax.training.allocator import keep_freed_memory


class Trials:
  """Some trials and the program that trains them."""

  def __init__(
    self,
    configs: list[Any],
    dataset: data.ImageDataset,
    layout: devices.Layout,
  ):
    shared = shared_config(configs)
    setup = build.set_up(shared, dataset, layout)
    self.program = setup.program()
    self._states = self.program.put(
      setup.init_states([build.set_up(c, dataset) for c in configs])
    )
    self._batches = [
      data.Batches(
        dataset.train_images,
        None,
        seed=config.seed,
        batch_size=config.batch_size,
      )
      for config in configs
    ]
    self._step = 0
    first = self.steps(1)
    self.compile_seconds = first - self.steps(1)

  def steps(self, count: int) -> float:
    """Seconds of so many steps of all trials, data included."""
    begin = time.perf_counter()
    for _ in range(count):
      steps = range(self._step, self._step + 1)
      batches = [
        loop.stack_batches(b, steps, 1, by_index=self.program.by_index)
        for b in self._batches
      ]
      self._states, _ = self.program(self._states, self.program.shard(batches))
      self._step += 1
    jax.block_until_ready(self._states)
    return time.perf_counter() - begin


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument(
    '--bits', type=int, nargs='+', default=[1, 2, 3, 4, 6, 8, 32]
  )
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--steps', type=int, default=10, help='in a round')
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  keep_freed_memory()
  devices.spread_over_cores(len(args.bits))
  dataset = data.load('digits', image_size=28, standin=False)
  record = start_record(
    ('jax', 'jaxlib', 'flax', 'optax', 'numpy'),
    bits=args.bits,
    rounds=args.rounds,
    steps=args.steps,
  )

  def config(bits: int) -> Any:
    return config_lib.resolve(
      config_lib.base(
        experiment='digits', bits=bits, quantizer='uniform', start_step=0
      )
    )

  configs = [config(bits) for bits in args.bits]
  one_device = devices.Layout(1, group=1)
  alone = [Trials([config], dataset, one_device) for config in configs]
  together = Trials(configs, dataset, devices.make_layout(len(configs)))
  seconds: dict[str, list[float]] = {'alone': [], 'together': []}
  with foreign_share(record):
    for _ in range(args.rounds):
      seconds['alone'].append(sum(t.steps(args.steps) for t in alone))
      seconds['together'].append(together.steps(args.steps))

  compiling = [t.compile_seconds for t in alone]
  steps = len(args.bits) * args.steps
  rates = {k: steps / statistics.median(v) for k, v in seconds.items()}
  record |= {
    'layout': vars(together.program.layout),
    'compile_seconds_alone': compiling,
    'compile_seconds_together': together.compile_seconds,
    'compile_to_one_trial': together.compile_seconds
    / statistics.median(compiling),
    'compile_to_all_trials': together.compile_seconds / sum(compiling),
    'member_steps_per_second': rates,
    'throughput_ratio': rates['together'] / rates['alone'],
  }
  table = Table(title=f'{len(args.bits)} bit widths, batch 32, 28×28')
  for title in ('', 'programs', 'compile s', 'members · steps / s'):
    table.add_column(title, justify='right' if title else 'left')
  table.add_row(
    'one after another',
    str(len(alone)),
    f'{sum(compiling):.1f}',
    f'{rates["alone"]:.1f}',
  )
  table.add_row(
    'population',
    '1',
    f'{together.compile_seconds:.1f}',
    f'{rates["together"]:.1f}',
  )
  table.add_row(
    'ratio',
    '',
    f'{record["compile_to_all_trials"]:.2f}',
    f'{record["throughput_ratio"]:.2f}',
  )
  say(table)
  say(
    f'Compiling the population takes {record["compile_to_one_trial"]:.2f} '
    'times what one trial takes.'
  )
  say_whether_comparable(record)
  save(record, args.out, 'sweep')


if __name__ == '__main__':
  main()
