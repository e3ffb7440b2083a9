"""EWGS: the gradient of each element is scaled by its rounding error."""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.uniform import (
  codes_symmetric,
  in_steps,
  is_inside,
  uniform,
)


@jax.custom_vjp
def scale_gradient(x: Array, y: Array, inside: Array, error: Array) -> Array:
  """Returns y; its gradient is g · (1 + sign(g) · error) inside, 0 outside.

  Lee et al. (EWGS), https://arxiv.org/abs/2104.00903, eq. 5. `inside` and
  `error` are constants of the backward pass. That pass is not linear in g; its
  own derivative is 1 + sign(g) · error, too.

  Args:
    x: a tensor of any shape and float dtype.
    y: what to return, of x's shape.
    inside: whether a value is in the range, of x's shape.
    error: δ · (x_n − x_q), float32 of x's shape.

  Returns:
    y in x's dtype.
  """
  del inside, error
  return y.astype(x.dtype)


def _fwd(x, y, inside, error):
  y = scale_gradient(x, y, inside, error)
  return y, (inside, jax.lax.stop_gradient(error))


def _bwd(residuals, g):
  inside, error = residuals
  # g + |g|·error, with a sign that has no gradient of its own.
  scaled = g * (1 + jnp.sign(jax.lax.stop_gradient(g)) * error)
  return jnp.where(inside, scaled, 0).astype(g.dtype), None, None, None


scale_gradient.defvjp(_fwd, _bwd)


def ewgs(*, delta: float = 1e-3, axis: Axis = None) -> Quantizer:
  """`uniform` with the gradient scaled by how far a value was rounded.

  Lee et al. (EWGS), https://arxiv.org/abs/2104.00903: a step that moves a value
  away from its level is made larger, one towards it smaller. x_n and x_q are
  the value and its level in units of the range [0, 1]. The paper learns the
  ends of the range and the scale of its outputs; here both are those of
  `uniform`.

  Args:
    delta: δ ≥ 0; 0 is `uniform`. The paper estimates it from the Hessian, or
      fixes it at 10⁻³, as here.
    axis: the axis of which each index has its own scale; None for one scale.

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """
  plain = uniform(axis=axis)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    zero_point, qmin, qmax = codes_symmetric(bits)
    scale = params['scale']
    steps = in_steps(x, scale, zero_point)
    codes = jnp.clip(jnp.round(steps), qmin, qmax)
    inside = is_inside(x, scale, zero_point, qmin, qmax)
    y = plain.decode(codes, params, bits)
    error = delta * (steps - codes) / (qmax - qmin)
    return scale_gradient(x, y, inside, error)

  return plain._replace(apply=apply)
