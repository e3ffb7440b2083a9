"""Quantization of gradients in the backward pass.

As in DoReFa-Net (Zhou et al., https://arxiv.org/abs/1606.06160, section 2.5),
the gradient of a layer's output is quantized. It is a factor of both products
of the backward pass, the one with the weights and the one with the inputs, so
both can be computed at its width. The gradient of the weights themselves, a sum
over the batch that only the optimizer reads, stays in float.
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
  """Returns y unchanged, and quantizes its gradient in the backward pass.

  Every example has its own range, as in the paper, so its gradient does not
  depend on the rest of the batch.

  Args:
    quantizer: of the gradient, fitted to that of each example.
    y: [B, …], a layer's output.
    bits: of the gradient; 32 and more leave it as it is.
    keys: [B, 2], for a stochastic quantizer; None to round to nearest.

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
