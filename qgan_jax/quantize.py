r"""Quantizes a trained run without training it again.

  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --bits=8
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 \
      --w_bits=3 --a_bits=8 --method=adaround
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --size=60000
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --max_ratio=1.1

Takes the run's best checkpoint, quantizes its moving average and D, calibrates
on latents and training images, and leaves a run folder of its own with scores
and an artifact. With --size or --max_ratio, every layer gets its own bits. In
Python, for any two Linen modules that are bound to their variables:

  quantized_generator, quantized_discriminator = quantize(
      generator, discriminator, bit_width=4)
"""

from collections.abc import Sequence
import numbers
from pathlib import Path
import sys
from typing import Any

from absl import flags
from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from qgan_jax import artifacts, errors, metrics, post_training
from qgan_jax import config as config_lib
from qgan_jax import quantizers as quantizers_lib
from qgan_jax.config.flags import Experiment
from qgan_jax.post_training import Sensitivity
from qgan_jax.precision import Bits, Precision, QuantizerSpec
from qgan_jax.precision.layers import kernel_output_axes
from qgan_jax.runs import build
from qgan_jax.runs.deliver import deliver
from qgan_jax.runs.folder import open_folder
from qgan_jax.runs.trained import (
  METHODS,
  networks,
  quantize_state,
  quantized_config,
  TrainedRun,
)
from qgan_jax.training.checkpoints import Checkpoints
from qgan_jax.training.sampling import CHOICE_SEED, Sampler
from qgan_jax.training.state import TrainState

_FLOAT = 32
_EVALUATED = 2000  # Images for one look at a candidate of --max_ratio.


def quantize(
  generator: nn.Module,
  discriminator: nn.Module,
  bit_width: int = 8,
  *,
  quantizer: str = 'uniform',
  per_channel: bool = True,
  generator_inputs: Sequence[Any] | None = None,
  discriminator_inputs: Sequence[Any] | None = None,
) -> tuple[nn.Module, nn.Module]:
  """Quantizes the parameters of two trained networks.

  Args:
    generator: a Linen module bound to its variables, `module.bind(variables)`.
    discriminator: another.
    bit_width: of the weights, 1 to 16, or 32, which leaves them in float;
      biases and norms stay in float. A quantizer whose definition fixes its
      width ignores it.
    quantizer: one of `quantizers.WEIGHTS` but `grid`, whose `bits` is no width.
    per_channel: a scale for each output channel.
    generator_inputs: arrays, or `jax.ShapeDtypeStruct`s, that the generator
      can be called with; nothing is computed. They show which axis of a kernel
      is the channels, which is known without them of layers that the module
      holds before a call (fields, `setup`). Give them where a compact call
      makes a `ConvTranspose` with `transpose_kernel=True`, or a
      `DenseGeneral` with several features: what their bias does not tell is
      taken for the last axis.
    discriminator_inputs: the same of the discriminator.

  Returns:
    Both, bound to quantized weights.

  Raises:
    ValueError: for another bit width or quantizer.
  """
  _check(bit_width, quantizer)
  precision = Precision(
    weights=QuantizerSpec(quantizer, axis=-1 if per_channel else None)
  )
  bits = Bits(jnp.float32(bit_width), jnp.float32(_FLOAT))

  def quantized(network: nn.Module, inputs: Sequence[Any] | None) -> nn.Module:
    module, variables = network.unbind()
    params = dict(traverse_util.flatten_dict(variables['params'], sep='/'))
    # All channels on one last axis, and back where they were.
    axes_of = kernel_output_axes(network, inputs) if per_channel else {}
    moved = {}
    for path, axes in axes_of.items():
      name = f'{path}/kernel' if path else 'kernel'
      w = jnp.moveaxis(params[name], axes, range(-len(axes), 0))
      moved[name] = w.shape, axes
      params[name] = w.reshape(*w.shape[: -len(axes)], -1)
    rounded = precision.quantize_weights(
      traverse_util.unflatten_dict(params, sep='/'), bits
    )
    params = dict(traverse_util.flatten_dict(rounded, sep='/'))
    for name, (shape, axes) in moved.items():
      w = params[name].reshape(shape)
      params[name] = jnp.moveaxis(w, range(-len(axes), 0), axes)
    params = traverse_util.unflatten_dict(params, sep='/')
    return module.bind({**variables, 'params': params})

  return (
    quantized(generator, generator_inputs),
    quantized(discriminator, discriminator_inputs),
  )


def _check(bit_width: int, quantizer: str) -> None:
  """Raises a ValueError for arguments of `quantize` that are none."""
  whole = isinstance(bit_width, numbers.Integral) and bit_width is not True
  if not whole or not (1 <= bit_width <= 16 or bit_width == _FLOAT):
    raise ValueError(
      f'bit_width={bit_width!r}: a whole number from 1 to 16, or {_FLOAT} for '
      'float'
    )
  names = [name for name in quantizers_lib.WEIGHTS if name != 'grid']
  if quantizer not in names:
    raise ValueError(f'quantizer={quantizer!r}: one of {", ".join(names)}')


def main() -> None:
  """Parses the command line and quantizes; see the module's docstring."""
  workdir = flags.DEFINE_string('workdir', None, 'The folder of a trained run.')
  out = flags.DEFINE_string(
    'out', None, 'Folder of the result; next to the run, named for the flags.'
  )
  bits = flags.DEFINE_integer('bits', None, 'Of weights and activations.')
  w_bits = flags.DEFINE_integer('w_bits', None, 'Of the weights.')
  a_bits = flags.DEFINE_integer('a_bits', None, 'Of the activations.')
  size = flags.DEFINE_integer(
    'size', None, 'Bytes of the artifact: every layer gets its own bits.'
  )
  max_ratio = flags.DEFINE_float(
    'max_ratio',
    None,
    'The fewest bits, layer by layer, whose Fréchet distance to training '
    "images is at most so many times the run's own.",
  )
  method = flags.DEFINE_enum(
    'method',
    'mse',
    METHODS,
    'nearest: as training would round; mse: scales of least squared error; '
    'adaround: these, and rounding by the output of every layer.',
  )
  quantizer = flags.DEFINE_enum(
    'quantizer',
    None,
    quantizers_lib.WEIGHTS,
    'Of the weights; uniform for nearest, and lsq otherwise.',
  )
  activation_quantizer = flags.DEFINE_enum(
    'activation_quantizer',
    'affine',
    quantizers_lib.ACTIVATIONS,
    'Of the activations.',
  )
  calibration = flags.DEFINE_enum(
    'calibration',
    'mse',
    tuple(post_training.RANGE_METHODS),
    'How static ranges of activations are chosen.',
  )
  dynamic = flags.DEFINE_bool(
    'dynamic', False, 'Ranges of activations from every batch.'
  )
  bias_correction = flags.DEFINE_bool(
    'bias_correction', True, "Correct the biases for the weights' errors."
  )
  samples = flags.DEFINE_integer(
    'samples', 1024, 'Calibration inputs.', lower_bound=1
  )
  steps = flags.DEFINE_integer(
    'rounding_steps', 1000, 'Of adaround, a layer.', lower_bound=0
  )
  seed = flags.DEFINE_integer(
    'seed', 0, 'Of the calibration inputs.', lower_bound=0
  )
  errors.parse_flags(sys.argv)
  if not workdir.value:
    raise errors.UserError('say which run: --workdir=runs/mnist/bits=32-s0')
  chosen = [f is not None for f in (bits.value, w_bits.value)]
  mixed = [f is not None for f in (size.value, max_ratio.value)]
  if sum(mixed) + any(chosen) != 1:
    raise errors.UserError(
      'say how many bits: --bits=N, or --w_bits=N with --a_bits=N, or a --size '
      'in bytes, or a --max_ratio'
    )
  name = quantizer.value or ('uniform' if method.value == 'nearest' else 'lsq')
  if method.value == 'adaround' and name not in ('lsq', 'seq'):
    raise errors.UserError(
      f'--method=adaround needs a quantizer with a scale that stays, lsq or '
      f'seq, not {name}'
    )

  fixed = quantizers_lib.by_name(name).fixed_bits
  if fixed and any(mixed):
    raise errors.UserError(
      f'--size and --max_ratio choose the bits of every layer, and {name} has '
      f'no other width than {fixed}; say --w_bits={fixed} instead'
    )

  def first(of: str, *values: int | None) -> int:
    own = quantizers_lib.by_name(of).fixed_bits
    return next(value for value in (*values, own, 8) if value is not None)

  weights = first(name, w_bits.value, bits.value)
  activations = first(activation_quantizer.value, a_bits.value, bits.value)
  run = TrainedRun(Path(workdir.value), samples=samples.value, seed=seed.value)
  sparse = any(run.setup.config[n].sparsity for n in config_lib.NETWORKS)
  if method.value == 'adaround' and sparse:
    raise errors.UserError(
      '--method=adaround moves weights between equal magnitudes, of which '
      'pruning takes all or none; use --method=mse for a pruned run'
    )
  extractor = build.make_extractor(run.setup.config, run.setup.dataset)

  def config_of(rules: str | None) -> FrozenConfigDict:
    return quantized_config(
      run.setup.config,
      w_bits=weights,
      a_bits=activations,
      quantizer=name,
      activation_quantizer=activation_quantizer.value,
      dynamic=dynamic.value,
      rules=rules,
    )

  def make(config: Any) -> tuple[build.Setup, Sampler, TrainState]:
    setup, state = quantize_state(
      run,
      config,
      method=method.value,
      calibration=calibration.value,
      bias_correction=bias_correction.value,
      rounding_steps=steps.value,
    )
    return setup, setup.sampler(), state

  config, what = config_of(None), f'w_bits={weights},a_bits={activations}'
  if any(mixed):
    setup = build.set_up(config, run.setup.dataset)
    state = run.initial_state(setup)
    rows = {
      network: post_training.sensitivity(
        part,
        *run.inputs[network],
        batch_size=min(64, len(run.inputs[network][0])),
      )  # fmt: skip
      for network, part in networks(setup, state).items()
    }
    if max_ratio.value is None:
      mean = _mean_bits_for_size(run, size.value or 0)
      what = f'size={size.value},a_bits={activations}'
    else:
      mean = _fewest_bits(
        run, extractor, max_ratio.value, rows,
        lambda rules: make(config_of(rules)),
      )  # fmt: skip
      what = f'max_ratio={max_ratio.value:g},a_bits={activations}'
    allocation = post_training.allocate_bits(rows, mean)
    print(post_training.format_allocation(rows, allocation))
    config = config_of(post_training.rules_of(allocation))

  how = f'{method.value},{name},{what}'
  options = (
    activation_quantizer, calibration, dynamic, bias_correction, samples,
    steps, seed,
  )  # fmt: skip
  for option in options:
    if option.value != option.default:
      how += f',{option.name}={option.value}'
  folder = Path(out.value or f'{workdir.value.rstrip("/")}+{how}')
  open_folder(
    folder,
    Experiment(config, 'qgan_jax.quantize', f'{workdir.value}:{how}', {}),
    run.setup.dataset.name,
    primary=True,
  )
  setup, sampler, state = make(config)
  step = int(state.step)
  Checkpoints(folder / 'checkpoints').save(step, state)
  samples_folder = folder / 'samples'
  samples_folder.mkdir(exist_ok=True)
  artifacts.save_grid(
    samples_folder / f'step_{step:07d}.png',
    sampler(state, 64),
    description=f'{run.setup.dataset.name}, {what} after training',
  )
  summary = deliver(
    folder,
    setup,
    best=state,
    last=state,
    sampler=sampler,
    extractor=extractor,
  )
  print(summary)
  count = config.scores.samples
  qfd = metrics.frechet_distance(
    extractor.extract(run.sampler(run.state, count)).features,
    extractor.extract(sampler(state, count)).features,
  )
  print(f'  to the float generator, same latents: Fréchet {qfd:.3f}')


def _mean_bits_for_size(run: TrainedRun, size: int) -> float:
  """Bits a weight that fit into a file, everything else of it in float."""
  params = run.state.averaged(run.sampler.name).params
  kernels = [
    w
    for path, w in jax.tree.leaves_with_path(params)
    if path[-1].key == 'kernel'
  ]
  count = sum(w.size for w in kernels)
  rest = sum(x.size for x in jax.tree.leaves(params)) - count
  # Scales of the channels, the header, alignment.
  overhead = 4 * rest + 4 * sum(w.shape[-1] for w in kernels) + 4096
  mean = 8 * (size - overhead) / count
  if mean < 1:
    raise errors.UserError(
      f'--size={size}: {overhead:,} bytes are biases, norms, scales, header; '
      f' {count:,} weights need at least {count // 8:,} more'
    )
  return min(mean, 8.0)


def _fewest_bits(
  run: TrainedRun,
  extractor: metrics.Extractor,
  max_ratio: float,
  rows: dict[str, list[Sensitivity]],
  make: Any,
) -> float:
  """The least bits a weight on average that keep a bound, by bisection."""
  count = min(10_000, len(run.setup.dataset.train_images))
  reference = extractor.extract(run.setup.dataset.train_images[:count]).features

  def distance(sampler: Sampler, state: TrainState) -> float:
    fake = sampler(state, _EVALUATED, seed=CHOICE_SEED)
    return metrics.frechet_distance(reference, extractor.extract(fake).features)

  def quantized(mean: float) -> float:
    allocation = post_training.allocate_bits(rows, mean)
    _, sampler, state = make(post_training.rules_of(allocation))
    return distance(sampler, state)

  bound = max_ratio * distance(run.sampler, run.state)
  low, high = 1.0, 8.0
  found = quantized(high)
  if found > bound:
    raise errors.UserError(
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


if __name__ == '__main__':
  errors.run(main)
