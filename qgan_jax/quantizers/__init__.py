"""Quantizers: pure functions of arrays, named as in their papers."""

from qgan_jax.quantizers.apot import apot
from qgan_jax.quantizers.base import Axis, Quantizer
from qgan_jax.quantizers.codebook import codebook
from qgan_jax.quantizers.dorefa import (
  dorefa,
  dorefa_activation,
  dorefa_gradient,
)
from qgan_jax.quantizers.ewgs import ewgs
from qgan_jax.quantizers.float_formats import fp8
from qgan_jax.quantizers.logarithmic import logarithmic
from qgan_jax.quantizers.lsq import lsq, lsq_plus, seq
from qgan_jax.quantizers.mse import uniform_mse
from qgan_jax.quantizers.mx import mx
from qgan_jax.quantizers.pact import pact
from qgan_jax.quantizers.pixels import pixels
from qgan_jax.quantizers.qgan_em import qgan_em
from qgan_jax.quantizers.ranges import tensor_range
from qgan_jax.quantizers.registry import (
  ACTIVATIONS,
  by_name,
  GRADIENTS,
  NAMES,
  PER_TENSOR,
  WEIGHTS,
)
from qgan_jax.quantizers.stochastic import stochastic
from qgan_jax.quantizers.ternary import ternary
from qgan_jax.quantizers.uniform import (
  fake_quantize,
  grid,
  power_of_two_scale,
  uniform,
)
from qgan_jax.quantizers.xnor import xnor

__all__ = [
  'ACTIVATIONS',
  'Axis',
  'GRADIENTS',
  'NAMES',
  'PER_TENSOR',
  'Quantizer',
  'WEIGHTS',
  'apot',
  'by_name',
  'codebook',
  'dorefa',
  'dorefa_activation',
  'dorefa_gradient',
  'ewgs',
  'fake_quantize',
  'fp8',
  'grid',
  'logarithmic',
  'lsq',
  'lsq_plus',
  'mx',
  'pact',
  'pixels',
  'power_of_two_scale',
  'qgan_em',
  'seq',
  'stochastic',
  'tensor_range',
  'ternary',
  'uniform',
  'uniform_mse',
  'xnor',
]
