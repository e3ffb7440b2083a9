"""Straight-through gradients: any forward pass with a chosen backward pass.

Quantizers round, and the derivative of rounding is 0 almost everywhere. These
functions return the rounded value with another gradient: the incoming one times
a slope (Bengio et al., https://arxiv.org/abs/1308.3432, where the slope is 1).
The slope is a constant of the backward pass. The backward pass is linear in the
incoming gradient and can be differentiated again, so a gradient penalty through
it is right. Forward mode (`jax.jvp`) raises an error, as for every
`jax.custom_vjp`.
"""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Params


@jax.custom_vjp
def straight_through(x: Array, y: Array, slope: Array) -> Array:
  """y, as if it were a function of x with the derivative `slope`.

  Args:
    x: a tensor of any shape and float dtype.
    y: what to return, of x's shape. No gradient flows into it.
    slope: ∂y/∂x, broadcastable to x. No gradient flows into it either.

  Returns:
    y in x's dtype.
  """
  del slope
  return y.astype(x.dtype)


def _fwd(x, y, slope):
  # Calls the custom_vjp function itself: a second derivative goes through
  # this line, and must meet the same rule there. And the slope is a constant,
  # however it was computed from x.
  return straight_through(x, y, slope), jax.lax.stop_gradient(slope)


def _bwd(slope, g):
  return (g * slope).astype(g.dtype), None, None


straight_through.defvjp(_fwd, _bwd)


@jax.custom_vjp
def straight_through_learned(
  x: Array, params: Params, y: Array, slope: Array, slopes: Params
) -> Array:
  """`straight_through` with params that gradient descent trains.

  Args:
    x: a tensor of any shape and float dtype.
    params: the learned params, each broadcastable to x. Their values are not
      used, since y already depends on them.
    y: what to return, of x's shape.
    slope: ∂y/∂x, broadcastable to x.
    slopes: ∂y/∂param for each of `params`, broadcastable to x.

  Returns:
    y in x's dtype. The gradient of a param is the sum over all values that
    share it.
  """
  del params, slope, slopes
  return y.astype(x.dtype)


def _learned_fwd(x, params, y, slope, slopes):
  y = straight_through_learned(x, params, y, slope, slopes)
  return y, jax.lax.stop_gradient((params, slope, slopes))


def _learned_bwd(residuals, g):
  params, slope, slopes = residuals
  gradients = {
    name: _sum_to(g.astype(jnp.float32) * slopes[name], param)
    for name, param in params.items()
  }
  return (g * slope).astype(g.dtype), gradients, None, None, None


straight_through_learned.defvjp(_learned_fwd, _learned_bwd)


def _sum_to(x: Array, like: Array) -> Array:
  """Sums x over the axes along which `like` was broadcast."""
  padded = (1,) * (x.ndim - like.ndim) + like.shape
  axes = tuple(i for i, n in enumerate(padded) if n == 1)
  return x.sum(axes).reshape(like.shape).astype(like.dtype)
