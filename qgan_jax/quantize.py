r"""Quantizes a trained run without training it again.

  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --bits=8
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 \
      --w_bits=3 --a_bits=8 --method=adaround
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --size=60000
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --max_ratio=1.1

Quantizes G's moving average and D of the run's best checkpoint, calibrated on
latents and training images. The result is a new run folder with scores and an
artifact. With --size or --max_ratio, bits are chosen layer by layer. In Python,
`qgan_jax.quantize(generator, discriminator)` quantizes any Linen modules; it is
`post_training.quantize`.
"""

from collections.abc import Sequence
import dataclasses
import sys
import types
from typing import Any

from absl import flags

from qgan_jax import errors, post_training
from qgan_jax import quantizers as quantizers_lib
from qgan_jax.post_training import quantize
from qgan_jax.runs import after_training


class _CallableModule(types.ModuleType):
  """This module, called as the function of the same name.

  `qgan_jax.quantize` is the function until this module is imported, and the
  module from then on: `quantize(generator, discriminator)` works with both.
  """

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Calls `post_training.quantize`."""
    return quantize(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule


def _define_flags() -> flags.FlagValues:
  values = flags.FlagValues()
  default = after_training.Options()
  errors.define_path('workdir', 'Folder of a trained run.', values)
  errors.define_module(values)
  errors.define_path(
    'out',
    'Folder of the result; by default next to the run, named after the flags.',
    values,
  )
  flags.DEFINE_integer(
    'bits', default.bits, 'Bits of weights and activations.', flag_values=values
  )
  flags.DEFINE_integer(
    'w_bits', default.w_bits, 'Bits of the weights.', flag_values=values
  )
  flags.DEFINE_integer(
    'a_bits', default.a_bits, 'Bits of the activations.', flag_values=values
  )
  flags.DEFINE_integer(
    'size',
    default.size,
    'Chooses bits layer by layer so that the artifact fits into so many bytes.',
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_float(
    'max_ratio',
    default.max_ratio,
    'Chooses the fewest bits, layer by layer, with which the Fréchet distance '
    'to training images is at most this many times that of the run.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_enum(
    'method',
    default.method,
    post_training.METHODS,
    'nearest rounds as training would; mse takes the scales of least squared '
    'error; adaround takes these, and rounds each weight up or down by its '
    "effect on its layer's output.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    'quantizer',
    default.quantizer,
    quantizers_lib.WEIGHTS,
    'Quantizer of the weights; by default uniform with nearest, and lsq '
    'otherwise.',
    flag_values=values,
  )
  flags.DEFINE_enum(
    'activation_quantizer',
    default.activation_quantizer,
    quantizers_lib.ACTIVATIONS,
    'Quantizer of the activations.',
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
    'Computes the ranges of activations from every batch, instead of static '
    'ones.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'bias_correction',
    default.bias_correction,
    "Corrects the biases for the weights' quantization errors.",
    flag_values=values,
  )
  errors.define_count(
    'samples', default.samples, 'Number of calibration inputs.', values, least=1
  )
  errors.define_count(
    'rounding_steps',
    default.rounding_steps,
    'Steps of adaround for each layer.',
    values,
  )
  errors.define_seed('Seed of the calibration inputs.', values)
  return values


def main(argv: Sequence[str]) -> None:
  """Quantizes a run; see the module's docstring."""
  values = _define_flags()
  errors.parse_flags(argv, values, __doc__)
  errors.import_module(values.module)
  if not values.workdir:
    raise errors.UserError('say which run: --workdir=runs/mnist/bits=32-s0')
  names = [field.name for field in dataclasses.fields(after_training.Options)]
  options = after_training.Options(**{n: getattr(values, n) for n in names})
  after_training.quantize_run(values.workdir, options, values.out)


if __name__ == '__main__':
  errors.run(main)
