"""Quantizes a trained run, and writes the result as a run of its own."""

import dataclasses
from pathlib import Path
import sys
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from qgan_jax import artifacts, metrics, post_training, quantizers, records
from qgan_jax import config as config_lib
from qgan_jax.config.flags import Experiment
from qgan_jax.config.kinds import widths
from qgan_jax.errors import UserError
from qgan_jax.post_training import Sensitivity
from qgan_jax.runs import build
from qgan_jax.runs.deliver import deliver
from qgan_jax.runs.folder import identity, make_folder, open_folder
from qgan_jax.runs.trained import (
  networks,
  quantize_state,
  quantized_config,
  TrainedRun,
)
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.sampling import CHOICE_SEED, Sampler
from qgan_jax.training.state import TrainState

_EVALUATED = 2000  # Images that a candidate of `max_ratio` is judged by.


@dataclasses.dataclass(frozen=True)
class Options:
  """How a run is quantized: the flags of `qgan_jax.quantize`.

  The number of bits is given in one of three ways: by `bits` or `w_bits`, by
  `size`, or by `max_ratio`.

  Attributes:
    bits: of weights and activations.
    w_bits: of the weights; `bits` if None.
    a_bits: of the activations; if None, `bits`, or 8 if that is not given.
    size: limit for the artifact, in bytes; bits are chosen layer by layer to
      fit.
    max_ratio: limit for the Fréchet distance to training images, as a multiple
      of the run's own; the fewest bits within it are chosen layer by layer.
    method: one of `post_training.METHODS`.
    quantizer: of the weights; None for the default of `method`.
    activation_quantizer: of the activations.
    calibration: how fixed ranges are chosen, one of
      `post_training.RANGE_METHODS`.
    dynamic: whether each batch's own range is used instead.
    bias_correction: whether biases are corrected for the errors of the weights.
    samples: number of calibration inputs.
    rounding_steps: steps of 'adaround' for each layer.
    seed: of the calibration inputs.
  """

  bits: int | None = None
  w_bits: int | None = None
  a_bits: int | None = None
  size: int | None = None
  max_ratio: float | None = None
  method: str = 'mse'
  quantizer: str | None = None
  activation_quantizer: str = 'affine'
  calibration: str = 'mse'
  dynamic: bool = False
  bias_correction: bool = True
  samples: int = 1024
  rounding_steps: int = 1000
  seed: int = 0

  @property
  def mixed(self) -> bool:
    """Whether layers get different bits."""
    return self.size is not None or self.max_ratio is not None


# Options that are in a result's name where they differ from the default.
_NAMED = (
  'activation_quantizer',
  'calibration',
  'dynamic',
  'bias_correction',
  'samples',
  'rounding_steps',
  'seed',
)


def quantize_run(workdir: str, options: Options, out: str | None) -> None:
  """Quantizes the best checkpoint of a run; saves, scores and packs the result.

  Args:
    workdir: the run's folder.
    options: how it is quantized.
    out: the folder of the result; None for one beside the run, named after the
      options.

  Raises:
    UserError: the options contradict each other or do not suit the run; the
      folder is not that of a run; or the result's folder holds something else.
  """
  options = _complete(options)
  run = TrainedRun(Path(workdir), samples=options.samples, seed=options.seed)
  sparse = any(run.setup.config[n].sparsity for n in config_lib.NETWORKS)
  if options.method == 'adaround' and sparse:
    raise UserError(
      '--method=adaround gives many weights the same magnitude, and pruning '
      'drops all of these or none; use --method=mse for a pruned run'
    )
  extractor = build.make_extractor(run.setup.config, run.setup.dataset)
  config = _config(run, options)
  what = f'w_bits={options.w_bits},a_bits={options.a_bits}'
  if options.mixed:
    config = _config(run, options, _find_rules(run, extractor, options))
    given = f'size={options.size}'
    if options.max_ratio is not None:
      given = f'max_ratio={options.max_ratio:g}'
    what = f'{given},a_bits={options.a_bits}'
  how = f'{options.method},{options.quantizer},{what}'
  for name in _NAMED:
    value = getattr(options, name)
    if value != getattr(Options, name):
      how += f',{name}={value}'
  place = Path(workdir)
  if place.name in ('', '..'):  # No name that could be made longer.
    place = place.resolve()
  folder = Path(out or place.with_name(f'{place.name}+{how}'))
  with records.alone(folder):
    open_folder(
      folder,
      Experiment(config, 'qgan_jax.quantize', f'{workdir}:{how}', {}),
      run.setup.dataset,
      saved=Checkpoints(folder / 'checkpoints', primary=False).origins(),
      primary=True,
    )
    setup, state = _quantize(run, config, options)
    table = [choice._asdict() for choice in setup.table]
    records.write_json(folder / 'precision.json', table)
    sampler = setup.sampler()
    step = int(state.step)
    about = identity(config, run.setup.dataset.name)
    Checkpoints(folder / 'checkpoints', about=about).save(step, state)
    samples_folder = folder / 'samples'
    make_folder(samples_folder)
    artifacts.save_grid(
      samples_folder / f'step_{step:07d}.png',
      sampler(state, 64),
      description=f'{run.setup.dataset.name}, {what} after training',
    )
    _, summary = deliver(
      folder, setup, best=state, last=state, extractor=extractor
    )
    print(summary)
    count = config.scores.samples
    qfd = metrics.frechet_distance(
      extractor.extract(run.sampler(run.state, count)).features,
      extractor.extract(sampler(state, count)).features,
    )
    print(f"  to the run's {run.sampler.name}, same latents: Fréchet {qfd:.3f}")


def _complete(options: Options) -> Options:
  """Options with all their defaults: the quantizer, `w_bits` and `a_bits`.

  Raises:
    UserError: they do not fit together.
  """
  uniform = options.bits is not None or options.w_bits is not None
  ways = uniform, options.size is not None, options.max_ratio is not None
  if sum(ways) != 1:
    raise UserError(
      'say how many bits: --bits=N, or --w_bits=N with --a_bits=N, or a --size '
      'in bytes, or a --max_ratio'
    )
  by_default = 'uniform' if options.method == 'nearest' else 'lsq'
  name = options.quantizer or by_default
  if options.method == 'adaround' and name not in ('lsq', 'seq'):
    raise UserError(
      f'--method=adaround needs a quantizer with a scale that stays, lsq or '
      f'seq, not {name}'
    )
  if name == 'grid' and options.mixed:
    raise UserError(
      '--size and --max_ratio choose bits, and grid has an exponent instead; '
      'say it, such as --w_bits=-6'
    )
  of_activations = quantizers.by_name(options.activation_quantizer)
  measured = not of_activations.learned and of_activations.from_range
  if options.calibration != Options.calibration and (
    options.dynamic or not measured
  ):
    raise UserError(
      f'--calibration={options.calibration} chooses fixed ranges, and with '
      '--dynamic, or a quantizer that has its own, there are none: leave it out'
    )
  rounds = options.method == 'adaround'
  if options.rounding_steps != Options.rounding_steps and not rounds:
    raise UserError('--rounding_steps is for --method=adaround')
  fixed = quantizers.by_name(name).fixed_bits
  if fixed and options.mixed:
    raise UserError(
      f'--size and --max_ratio choose the bits of every layer, and {name} has '
      f'no other width than {fixed}; say --w_bits={fixed} instead'
    )

  def first(of: str, *values: int | None) -> int:
    own = quantizers.by_name(of).fixed_bits
    return next(value for value in (*values, own, 8) if value is not None)

  w_bits = first(name, options.w_bits, options.bits)
  a_bits = first(options.activation_quantizer, options.a_bits, options.bits)
  for flag, of, bits in (
    ('w_bits', name, w_bits),
    ('a_bits', options.activation_quantizer, a_bits),
  ):
    kind = widths(of)
    if not kind.accepts(bits):
      raise UserError(f'--{flag}={bits} with {of}: it takes {kind.allowed}')
  return dataclasses.replace(
    options, quantizer=name, w_bits=w_bits, a_bits=a_bits
  )


def _config(
  run: TrainedRun, options: Options, rules: str | None = None
) -> FrozenConfigDict:
  """The run's config, quantized as complete options say."""
  assert options.quantizer is not None
  assert options.w_bits is not None and options.a_bits is not None
  return quantized_config(
    run.setup.config,
    w_bits=options.w_bits,
    a_bits=options.a_bits,
    quantizer=options.quantizer,
    activation_quantizer=options.activation_quantizer,
    dynamic=options.dynamic,
    rules=rules,
  )


def _quantize(
  run: TrainedRun, config: Any, options: Options
) -> tuple[build.Setup, TrainState]:
  """The run's networks quantized, and their state."""
  return quantize_state(
    run,
    config,
    method=options.method,
    calibration=options.calibration,
    bias_correction=options.bias_correction,
    rounding_steps=options.rounding_steps,
  )


def _find_rules(
  run: TrainedRun, extractor: metrics.Extractor, options: Options
) -> str:
  """Precision rules with the bits of every layer; prints these in a table."""
  config = _config(run, options)
  setup = build.set_up(config, run.setup.dataset)
  state = run.initial_state(setup)
  rows = {
    network: post_training.sensitivity(
      part,
      *run.inputs[network],
      batch_size=post_training.batch_size_for(run.inputs[network]),
    )  # fmt: skip
    for network, part in networks(setup, state).items()
  }
  if options.max_ratio is None:
    mean = _mean_bits_for_size(run, options.size or 0)
  else:
    mean = _fewest_bits(run, extractor, options, options.max_ratio, rows)
  allocation = post_training.allocate_bits(rows, mean)
  print(post_training.format_allocation(rows, allocation))
  return post_training.rules_of(allocation)


def _mean_bits_for_size(run: TrainedRun, size: int) -> float:
  """Mean bits of a weight that fit into a file; all but kernels is in float."""
  network = run.state.averaged(run.sampler.name)
  kernels = [
    w
    for path, w in jax.tree.leaves_with_path(network.params)
    if path[-1].key == 'kernel'
  ]
  count = sum(w.size for w in kernels)
  kept = jax.tree.leaves((network.params, network.stats))
  rest = sum(x.size for x in kept) - count
  # Scales of the channels, the header, alignment.
  overhead = 4 * rest + 4 * sum(w.shape[-1] for w in kernels) + 4096
  mean = 8 * (size - overhead) / count
  if mean < 1:
    raise UserError(
      f'--size={size}: {overhead:,} bytes are biases, norms, scales, header; '
      f'{count:,} weights need at least {count // 8:,} more'
    )
  return min(mean, 8.0)


def _fewest_bits(
  run: TrainedRun,
  extractor: metrics.Extractor,
  options: Options,
  max_ratio: float,
  rows: dict[str, list[Sensitivity]],
) -> float:
  """The fewest bits a weight, on average, that keep a bound; by bisection."""
  count = min(10_000, len(run.setup.dataset.train_images))
  reference = extractor.extract(
    run.setup.dataset.train_targets[:count]
  ).features

  def distance(sampler: Sampler, state: TrainState) -> float:
    labels = run.setup.labels_to_draw(_EVALUATED)
    fake = sampler(state, _EVALUATED, seed=CHOICE_SEED, labels=labels)
    return metrics.frechet_distance(reference, extractor.extract(fake).features)

  def quantized(mean: float) -> float:
    allocation = post_training.allocate_bits(rows, mean)
    config = _config(run, options, post_training.rules_of(allocation))
    setup, state = _quantize(run, config, options)
    return distance(setup.sampler(), state)

  bound = max_ratio * distance(run.sampler, run.state)
  low, high = 1.0, 8.0
  found = quantized(high)
  if found > bound:
    raise UserError(
      f'--max_ratio={max_ratio:g} cannot be kept: with 8 bits everywhere the '
      f'Fréchet distance is {found:.2f}, and the bound {bound:.2f}'
    )
  while high - low > 0.25:
    middle = (low + high) / 2
    found = quantized(middle)
    print(
      f'{middle:.2f} bits a weight: Fréchet {found:.2f}, bound {bound:.2f}',
      file=sys.stderr,
    )
    low, high = (low, middle) if found <= bound else (middle, high)
  return high
