"""What each trick for XLA on a CPU buys: the default step with and without it.

  python benchmarks/cpu_tricks.py --out=benchmarks/results

Some of the package's code is written for speed where a plainer line says the
same. Here that code is exchanged for the plainer line while the step is traced
and compiled; the package itself has no switch for it. A step without a trick
takes turns with the unchanged step, one step each, and both are compared: 1.10
says that the step takes 10 % longer without. Beside time on the clock stands
the time of all cores, which other processes disturb less. The first row
exchanges nothing, and shows what the ratios are worth on this machine.
"""

import argparse
from collections.abc import Iterator
import contextlib
import functools
from pathlib import Path
import statistics
import time
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
from jax import lax
from measuring import (
  foreign_share,
  save,
  say,
  say_whether_comparable,
  start_record,
  Step,
  warmed,
)
from rich.table import Table

from qgan_jax import config, data
from qgan_jax.models import convolution, dcgan, r3gan
from qgan_jax.runs import build
from qgan_jax.training import devices, flat, nets
from qgan_jax.training import step as step_lib
from qgan_jax.training.allocator import keep_freed_memory

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
# What differs from the default step; 'r3gan' is in float.
SETTINGS: dict[str, dict[str, Any]] = {
  'float': {'bits': 32},
  'W8A8': {'bits': 8},
  'r3gan': {
    'bits': 32, 'model': 'r3gan', 'loss': 'relativistic', 'penalty': 'r1_r2',
  },
}  # fmt: skip
PLAIN_UP = functools.partial(nn.ConvTranspose, kernel_size=(4, 4))


class Trick(NamedTuple):
  """Code that is written for speed, and the plainer line.

  Attributes:
    name: of the code.
    without: what is done instead.
    owner: where the code lies.
    attribute: its name there.
    plain: what takes its place.
    settings: names of those in which it makes a difference.
  """

  name: str
  without: str
  owner: Any
  attribute: str
  plain: Any
  settings: tuple[str, ...] = ('float', 'W8A8')


def _convolve(x, k, strides, padding, **kwargs):
  return lax.conv_general_dilated(x, k, strides, padding, **kwargs)


class _QuantizedInEachCall(nets.Nets):
  """Weights are quantized whenever a network is called."""

  def _call(self, name: str, moves: bool, *args: Any) -> Any:
    _, noise = self._weights[name]
    weights = self._networks[name].quantize(
      self.states[name], self._trained[name], noise
    )
    with mock.patch.dict(self._weights, {name: (weights, noise)}):
      return super()._call(name, moves, *args)


TRICKS = (
  Trick('nothing', 'the same step again', build, 'set_up', build.set_up,
        (*SETTINGS,)),
  Trick('training.trainable.computed_once', 'gradients as they are',
        step_lib, 'computed_once', lambda grads, step: grads),
  Trick('models.convolution.UpConv', '`nn.ConvTranspose`', dcgan, 'UpConv',
        functools.partial(PLAIN_UP, strides=(2, 2)), ('float',)),
  Trick('models.convolution.PixelConv', '`nn.ConvTranspose`', dcgan,
        'PixelConv', functools.partial(
          PLAIN_UP, padding='VALID', use_bias=False), ('float',)),
  Trick('models.convolution.strided_conv', '`lax.conv_general_dilated`',
        convolution, 'strided_conv', _convolve, ('float',)),
  Trick('models.convolution.conv_adjoint by rows', 'one product, as on a GPU',
        convolution._conv_adjoint, 'fun', convolution.adjoint_by_product,
        ('float',)),
  Trick('training.flat: small arrays as one', 'each by itself', flat,
        '_SMALL', -1),
  Trick('training.nets: weights quantized once', 'in each call', step_lib,
        'Nets', _QuantizedInEachCall, ('W8A8',)),
  Trick('models.convolution.pointwise_conv', '`lax.conv_general_dilated`',
        r3gan, 'pointwise_conv', _convolve, ('r3gan',)),
  Trick('models.convolution.grouped_conv', '`lax.conv_general_dilated`',
        r3gan, 'grouped_conv', _convolve, ('r3gan',)),
)  # fmt: skip
START = Trick('precision.compile: a first state', '`jax.jit`', build,
              'compile_quickly', jax.jit)  # fmt: skip


def make_step(setup: build.Setup, start: Any) -> Step:
  """The step of a run, as training takes it, from the run's first state."""
  program = setup.program()
  batch_size = setup.config.batch_size
  batches = data.Batches(setup.dataset.train_images, None, 0, batch_size)
  batch = program.shard([{'images': batches.at(0)[0][None, None]}])
  state = program.put([start])

  def step() -> None:
    nonlocal state
    state, metrics = program(state, batch)
    jax.block_until_ready((state, metrics))

  return step


@contextlib.contextmanager
def exchanged(trick: Trick) -> Iterator[None]:
  """The package without a trick, for what is traced meanwhile."""
  with mock.patch.object(trick.owner, trick.attribute, trick.plain):
    yield


class Unchanged(NamedTuple):
  """The step with all tricks.

  Attributes:
    name: of its setting.
    setup: of the run.
    start: the run's first state, on the host.
    step: compiled.
  """

  name: str
  setup: build.Setup
  start: Any
  step: Step


def unchanged(setup: build.Setup, name: str) -> Unchanged:
  """Makes the step with all tricks."""
  start = setup.init_state()
  step = warmed({'': make_step(setup, start)})['']
  return Unchanged(name, setup, start, step)


def compare(trick: Trick, base: Unchanged, rounds: int) -> dict[str, Any]:
  """Times the step with and without a trick, in turns."""
  own = base.setup
  with exchanged(trick):
    setup = build.set_up(own.config, own.dataset, own.layout)
    without = warmed({'': make_step(setup, base.start)})['']
  case: dict[str, Any] = {
    'trick': trick.name, 'without': trick.without, 'setting': base.name,
  }  # fmt: skip
  with foreign_share(case):
    pairs = [
      _pair(base.step, without, swapped=i % 2 == 1) for i in range(rounds)
    ]
  return case | _summary(pairs)


def compare_start(setup: build.Setup) -> dict[str, Any]:
  """Times the making of a run's first state, compilation included."""

  def start() -> None:
    jax.clear_caches()
    jax.block_until_ready(setup.init_state())

  def start_without() -> None:
    with exchanged(START):
      start()

  case: dict[str, Any] = {
    'trick': START.name, 'without': START.without, 'setting': 'W8A8',
  }  # fmt: skip
  with foreign_share(case):
    pairs = [_pair(start, start_without, swapped=i % 2 == 1) for i in range(4)]
  return case | _summary(pairs)


def _summary(pairs: list[Any]) -> dict[str, Any]:
  """What pairs say of time on the clock and of all cores."""
  found = {}
  for unit, times in zip(('clock', 'cores'), zip(*pairs, strict=True),
                         strict=True):  # fmt: skip
    ours, theirs = zip(*times, strict=True)
    ratios = [b / a for a, b in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    found[unit] = {
      'with_ms': 1e3 * statistics.median(ours),
      'without_ms': 1e3 * statistics.median(theirs),
      'ratio': middle,
      'middle_half': [low, high],
    }
  return found


def _pair(
  base: Step, without: Step, *, swapped: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
  """One step of each: seconds on the clock, and of all cores."""
  seconds = {}
  for step in (without, base) if swapped else (base, without):
    clock, cores = time.perf_counter(), time.process_time()
    step()
    seconds[step] = time.perf_counter() - clock, time.process_time() - cores
  return tuple(zip(seconds[base], seconds[without], strict=True))


def print_cases(cases: list[dict[str, Any]]) -> None:
  """Prints the cases as one table."""
  table = Table(caption='without / with; above 1 the trick is worth it')
  for title in ('trick', 'instead', 'setting'):
    table.add_column(title)
  for title in ('with, ms', 'without, ms', 'ratio', 'middle half', 'of cores'):
    table.add_column(title, justify='right')
  for case in cases:
    clock, cores = case['clock'], case['cores']
    low, high = clock['middle_half']
    table.add_row(
      case['trick'], case['without'], case['setting'],
      f'{clock["with_ms"]:.1f}', f'{clock["without_ms"]:.1f}',
      f'{clock["ratio"]:.3f}', f'{low:.3f}–{high:.3f}', f'{cores["ratio"]:.3f}',
    )  # fmt: skip
  say(table)
  worst = max(cases, key=lambda case: case['foreign_share'] or 0)
  say_whether_comparable(worst)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--rounds', type=int, default=100, help='steps of each')
  parser.add_argument('--channels', type=int, default=32)
  parser.add_argument(
    '--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS)
  )
  parser.add_argument('--only', default='', help="part of the tricks' names")
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  keep_freed_memory()
  dataset = data.load(
    'digits', data_dir=None, image_size=28, channels=1, standin=False
  )
  cases: list[dict[str, Any]] = []
  for name in args.settings:
    record = start_record(
      PACKAGES, image_size=28, channels=args.channels, rounds=args.rounds
    )
    record['cases'] = found = []
    resolved = config.resolve(
      config.base(
        experiment='cpu_tricks',
        start_step=0,
        channels=args.channels,
        **SETTINGS[name],
      )
    )
    setup = build.set_up(resolved, dataset, devices.make_layout(1))
    if name == 'W8A8' and args.only in START.name:
      found.append(compare_start(setup))  # It clears JAX's caches.
    base = unchanged(setup, name)
    for trick in TRICKS:
      if name not in trick.settings or args.only not in trick.name:
        continue
      found.append(compare(trick, base, args.rounds))
      # After every case, so that an interrupted benchmark keeps the others.
      save(record, args.out, f'cpu_tricks-{name.lower()}')
    cases += found
  print_cases(cases)


if __name__ == '__main__':
  main()
