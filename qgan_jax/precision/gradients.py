"""Gradients quantized on their way back through a network.

What is quantized is the gradient of a layer's output, as in DoReFa-Net (Zhou
et al., https://arxiv.org/abs/1606.06160, section 2.5): it is a factor of both
products of the backward pass, that with the weights and that with the inputs,
so both run at its width. The gradient of the weights themselves, a sum over
the batch that only the optimizer sees, stays in float.
"""

import functools

import jax
import jax.numpy as jnp

from qgan_jax.precision.spec import FLOAT_BITS
from qgan_jax.quantizers import Quantizer

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def quantize_cotangent(
  quantizer: Quantizer, y: Array, bits: Array, keys: Array | None
) -> Array:
  """Gives y as it is; the gradient that comes back is quantized.

  Every example has a range of its own, as in the paper: its gradient depends
  on the rest of the batch in nothing.

  Args:
    quantizer: of the gradient, fitted to each example's.
    y: [B, …], a layer's output.
    bits: of the gradient; from 32 on it is left as it is.
    keys: [B, 2], of a stochastic quantizer; None to round to nearest.

  Returns:
    y.
  """
  del quantizer, bits, keys
  return y


def _fwd(quantizer, y, bits, keys):
  return quantize_cotangent(quantizer, y, bits, keys), (bits, keys)


def _bwd(quantizer, residuals, g):
  bits, keys = residuals

  def quantize(g, *key):
    return quantizer.apply(g, quantizer.fit(g, bits), bits, *key)

  stochastic = quantizer.stochastic and keys is not None
  rounded = jax.vmap(quantize)(*((g, keys) if stochastic else (g,)))
  return jnp.where(bits >= FLOAT_BITS, g, rounded), None, None


quantize_cotangent.defvjp(_fwd, _bwd)
