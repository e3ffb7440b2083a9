r"""Quantizes a trained run without training it again.

  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --bits=8
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 \
      --w_bits=3 --a_bits=8 --method=adaround
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --size=60000
  python -m qgan_jax.quantize --workdir=runs/mnist/bits=32-s0 --max_ratio=1.1

Takes the run's best checkpoint, quantizes its moving average and D, calibrates
on latents and training images, and leaves a run folder of its own with scores
and an artifact. With --size or --max_ratio, every layer gets its own bits. In
Python, for any Linen modules: `qgan_jax.quantize(generator, discriminator)`,
which is `post_training.quantize`.
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
  errors.define_path('workdir', 'The folder of a trained run.', values)
  errors.define_module(values)
  errors.define_path(
    'out', 'Folder of the result; next to the run, named for the flags.', values
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
    lower_bound=1,
    flag_values=values,
  )
  flags.DEFINE_float(
    'max_ratio',
    default.max_ratio,
    'The fewest bits, layer by layer, whose Fréchet distance to training '
    "images is at most so many times the run's own.",
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_enum(
    'method',
    default.method,
    post_training.METHODS,
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
  errors.define_count(
    'samples', default.samples, 'Calibration inputs.', values, least=1
  )
  errors.define_count(
    'rounding_steps', default.rounding_steps, 'Of adaround, a layer.', values
  )
  errors.define_seed('Of the calibration inputs.', values)
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
