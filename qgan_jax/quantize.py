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
import dataclasses
import numbers
from typing import Any

from absl import flags
from flax import traverse_util
import flax.linen as nn
import jax.numpy as jnp

from qgan_jax import errors, post_training
from qgan_jax import quantizers as quantizers_lib
from qgan_jax.precision import Bits, Precision, QuantizerSpec
from qgan_jax.precision.layers import kernel_output_axes
from qgan_jax.runs import after_training
from qgan_jax.runs.trained import METHODS

_FLOAT = 32


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


def _define_flags() -> flags.FlagValues:
  values = flags.FlagValues()
  default = after_training.Options()
  flags.DEFINE_string(
    'workdir', None, 'The folder of a trained run.', flag_values=values
  )
  flags.DEFINE_string(
    'out',
    None,
    'Folder of the result; next to the run, named for the flags.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'bits', default.bits, 'Of weights and activations.', flag_values=values
  )
  flags.DEFINE_integer(
    'w_bits', default.w_bits, 'Of the weights.', flag_values=values
  )
  flags.DEFINE_integer(
    'a_bits', default.a_bits, 'Of the activations.', flag_values=values
  )
  flags.DEFINE_integer(
    'size',
    default.size,
    'Bytes of the artifact: every layer gets its own bits.',
    flag_values=values,
  )
  flags.DEFINE_float(
    'max_ratio',
    default.max_ratio,
    'The fewest bits, layer by layer, whose Fréchet distance to training '
    "images is at most so many times the run's own.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    'method',
    default.method,
    METHODS,
    'nearest: as training would round; mse: scales of least squared error; '
    'adaround: these, and rounding by the output of every layer.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'quantizer',
    default.quantizer,
    quantizers_lib.WEIGHTS,
    'Of the weights; uniform for nearest, and lsq otherwise.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'activation_quantizer',
    default.activation_quantizer,
    quantizers_lib.ACTIVATIONS,
    'Of the activations.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'calibration',
    default.calibration,
    tuple(post_training.RANGE_METHODS),
    'How static ranges of activations are chosen.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'dynamic',
    default.dynamic,
    'Ranges of activations from every batch.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'bias_correction',
    default.bias_correction,
    "Correct the biases for the weights' errors.",
    flag_values=values,
  )
  flags.DEFINE_integer(
    'samples',
    default.samples,
    'Calibration inputs.',
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'rounding_steps',
    default.rounding_steps,
    'Of adaround, a layer.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_integer(
    'seed',
    default.seed,
    'Of the calibration inputs.',
    lower_bound=0,
    flag_values=values,
  )
  return values


def main(argv: Sequence[str]) -> None:
  """Quantizes a run; see the module's docstring."""
  values = _define_flags()
  errors.parse_flags(argv, values, __doc__)
  if not values.workdir:
    raise errors.UserError('say which run: --workdir=runs/mnist/bits=32-s0')
  names = [field.name for field in dataclasses.fields(after_training.Options)]
  options = after_training.Options(**{n: getattr(values, n) for n in names})
  after_training.quantize_run(values.workdir, options, values.out)


if __name__ == '__main__':
  errors.run(main)
