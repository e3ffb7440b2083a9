"""Uniform quantizers: equal steps, with scales of three kinds.

All use the same rounding, x̂ = scale · (q − zero_point) with q = clip(round(x /
scale + zero_point), qmin, qmax), and the straight-through gradient: the
incoming gradient inside the range, zero outside (Bengio et al.,
https://arxiv.org/abs/1308.3432).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  ceil_log2,
  finite,
  is_within,
  largest,
  not_of_nothing,
  positive,
  power_of_two,
  tensor_range,
)


@jax.custom_vjp
def fake_quantize(
  x: Array, scale: Array, zero_point: Array, qmin: Array, qmax: Array
) -> Array:
  """Rounds to a uniform grid, straight-through inside the range.

  Source: Jacob et al., https://arxiv.org/abs/1712.05877, eq. 12. The backward
  pass is linear in the incoming gradient and can be differentiated again, so a
  gradient penalty through it is right. Forward mode (`jax.jvp`) raises an
  error, as for every `jax.custom_vjp`.

  Args:
    x: a tensor of any shape and float dtype; the arithmetic is float32.
    scale: step size, broadcastable to x, positive.
    zero_point: the code of the real value 0, broadcastable to x. Halves are
      allowed: −½ gives the two levels ±scale/2 at 1 bit.
    qmin: least code.
    qmax: greatest code.

  Returns:
    x̂, in x's shape and dtype.
  """
  codes = round_to_codes(x, scale, zero_point, qmin, qmax)
  return finite((codes - zero_point) * scale).astype(x.dtype)


def in_steps(x: Array, scale: Array, zero_point: Array) -> Array:
  """The code of x before rounding and clipping: x / scale + zero_point.

  It multiplies by the reciprocal of the scale, as the kernels of PyTorch and
  TensorFlow do. A division would sometimes round to another code.
  """
  return x.astype(jnp.float32) * (1 / scale) + zero_point


def is_inside(
  x: Array, scale: Array, zero_point: Array, qmin: Array, qmax: Array
) -> Array:
  """Whether x lies in the cell of some code, including the cell's ends.

  At one bit the largest |x| is such an end. So is the least or the greatest x
  of an affine range whose zero lies halfway between two codes.
  """
  low = (qmin - 0.5 - zero_point) * scale
  high = (qmax + 0.5 - zero_point) * scale
  return is_within(x, low, high)


def round_to_codes(
  x: Array, scale: Array, zero_point: Array, qmin: Array, qmax: Array
) -> Array:
  """The codes q of `fake_quantize`, as float32."""
  return jnp.clip(jnp.round(in_steps(x, scale, zero_point)), qmin, qmax)


def _fwd(x, scale, zero_point, qmin, qmax):
  # Calls the custom_vjp function itself: a second derivative goes through
  # this line, and must meet the straight-through rule there, not `round`.
  y = fake_quantize(x, scale, zero_point, qmin, qmax)
  return y, is_inside(x, scale, zero_point, qmin, qmax)


def _bwd(inside, g):
  return jnp.where(inside, g, jnp.zeros_like(g)), None, None, None, None


fake_quantize.defvjp(_fwd, _bwd)


def codes_symmetric(bits: Array) -> tuple[Array, Array, Array]:
  """(zero_point, qmin, qmax) of signed codes.

  The range is the narrow one of Jacob et al., ±(2ⁿ⁻¹ − 1). One bit has no code
  left for zero: its codes are {−1, 0} with a zero point of −½.
  """
  qmax = jnp.exp2(jnp.asarray(bits, jnp.float32) - 1).round() - 1
  binary = qmax < 1
  return (
    jnp.where(binary, -0.5, 0.0),
    jnp.where(binary, -1.0, -qmax),
    jnp.where(binary, 0.0, qmax),
  )


def codes_affine(bits: Array) -> tuple[Array, Array]:
  """(qmin, qmax) of unsigned codes."""
  qmax = jnp.exp2(jnp.asarray(bits, jnp.float32)).round() - 1
  return jnp.zeros_like(qmax), qmax


def rounding(
  fit: Callable[[Array, Array], Params],
  from_range: Callable[[Array, Array, Array], Params] | None,
  codes_of: Callable[[Params, Array], tuple[Array, Array, Array]],
) -> Quantizer:
  """A quantizer that rounds with params['scale'] by `fake_quantize`.

  Args:
    fit: of the quantizer.
    from_range: of the quantizer.
    codes_of: (params, bits) → (zero_point, qmin, qmax).

  Returns:
    A `Quantizer`.
  """

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    return fake_quantize(x, params['scale'], *codes_of(params, bits))

  def encode(x: Array, params: Params, bits: Array) -> Array:
    codes = round_to_codes(x, params['scale'], *codes_of(params, bits))
    return codes.astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    zero_point, _, _ = codes_of(params, bits)
    return finite((codes.astype(jnp.float32) - zero_point) * params['scale'])

  return Quantizer(fit, from_range, apply, encode, decode)


def _symmetric(
  scale_of: Callable[[Array, Array], Array], axis: Axis
) -> Quantizer:
  """A signed quantizer, from (largest magnitude, qmax) → scale."""

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    _, _, qmax = codes_symmetric(bits)
    # At one bit the two levels ±scale/2 halve [−max, max] into equal cells.
    steps = jnp.maximum(qmax, 1.0)
    top = largest(low, high)
    return {'scale': not_of_nothing(scale_of(top, steps), top, qmax)}

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  return rounding(fit, from_range, lambda params, bits: codes_symmetric(bits))


def uniform(*, symmetric: bool = True, axis: Axis = None) -> Quantizer:
  """Uniform quantization, Jacob et al., https://arxiv.org/abs/1712.05877.

  Args:
    symmetric: True for signed codes around zero, scale = max|x| / (2ⁿ⁻¹ − 1);
      one bit has the levels ±max|x|/2. False for affine: unsigned codes over
      the range, extended to contain 0, which is represented exactly; scale =
      (max − min) / (2ⁿ − 1).
    axis: the axis of which each index has its own scale (per channel); None for
      one scale (per tensor).

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """
  if symmetric:
    return _symmetric(lambda top, q: positive(top / q), axis)

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    low = jnp.minimum(low, 0.0).astype(jnp.float32)
    high = jnp.maximum(high, 0.0).astype(jnp.float32)
    qmin, qmax = codes_affine(bits)
    # Divided first: max − min of huge values would overflow.
    scale = positive(high / qmax - low / qmax)
    zero_point = jnp.clip(jnp.round(-low / scale), qmin, qmax)
    return {'scale': scale, 'zero_point': zero_point}

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  return rounding(
    fit,
    from_range,
    lambda params, bits: (params['zero_point'], *codes_affine(bits)),
  )


def power_of_two_scale(*, axis: Axis = None) -> Quantizer:
  """Q(x) = round(x / 2ᵉ) · 2ᵉ, with e from the bit width and the range.

  e = ceil(log2(max|x| / (2ⁿ⁻¹ − 1))), the least exponent at which nothing is
  clipped. Multiplication by the scale is a shift. Unlike in `grid`, `bits` is a
  bit width.

  Jain et al. (TQT), https://arxiv.org/abs/1903.08066, restrict scales in this
  way, too, but with e = ceil(log2 t) − (n − 1) for a trained threshold t, and
  with codes from −2ⁿ⁻¹. For t = max|x| = 1 and 8 bits their scale is 2⁻⁷, which
  clips 1 to 127/128; here it is 2⁻⁶. Nothing is trained here.

  Args:
    axis: the axis of which each index has its own exponent; None for one
      exponent.

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """

  def scale_of(top: Array, q: Array) -> Array:
    # Where float32 does not hold the power or its reciprocal, values clip.
    return power_of_two(ceil_log2(positive(top / q)))

  return _symmetric(scale_of, axis)


# Beyond these exponents a step or its reciprocal is no normal float32.
_MAX_EXPONENT = 126
# The largest float32 below 2³¹, where int32 ends.
_MAX_CODE = 2.0**31 - 2**7


def _grid_step(exponent: Array) -> Array:
  """2ᵇ, exact where b is an integer: `jnp.exp2` alone is not."""
  b = jnp.clip(
    jnp.asarray(exponent, jnp.float32), -_MAX_EXPONENT, _MAX_EXPONENT
  )
  whole = jnp.round(b)
  return jnp.ldexp(jnp.exp2(b - whole), whole.astype(jnp.int32))


def grid() -> Quantizer:
  """Q(x) = round(x / 2ᵇ) · 2ᵇ exactly, for any real b from −126 to 126.

  Here `bits` is the b of the formula, the logarithm of the step, and not a
  number of bits. b = 8 is a grid of step 256, on which every weight of a
  network is 0; b = −6 is a step of 1/64. Nothing is clipped, so the number of
  levels depends on the tensor. For an integer b, Q(x) is exact.

  Codes are int32, and `encode` saturates at ±(2³¹ − 128) steps. A float32
  beyond that has no digits below the step, and `apply` returns it as it is.

  Returns:
    A `Quantizer` whose `bits` is b. Its `fit` raises a ValueError for b outside
    of this range, because float32 cannot hold both 2ᵇ and 2⁻ᵇ. A traced b,
    whose value is not known yet, is clipped instead.
  """

  def fit(x: Array, bits: Array) -> Params:
    del x
    return from_range(jnp.zeros(()), jnp.zeros(()), bits)

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    del low, high  # The formula has no range.
    if not isinstance(bits, jax.core.Tracer):
      outside = ~(np.abs(np.asarray(bits, np.float64)) <= _MAX_EXPONENT)
      if outside.any():
        raise ValueError(
          f'b={np.asarray(bits)[outside].ravel()[0]:g} is no exponent of a '
          f'grid: a number from -{_MAX_EXPONENT} to {_MAX_EXPONENT}, so that '
          'float32 holds the step 2^b and its reciprocal'
        )
    return {'scale': _grid_step(bits)}

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del bits, key
    scale = params['scale']
    rounded = fake_quantize(x, scale, zero, -infinity, infinity)
    steps = jnp.abs(in_steps(x, scale, zero))
    return jnp.where(steps > _MAX_CODE, x, rounded)

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del bits
    codes = jnp.round(in_steps(x, params['scale'], zero))
    return jnp.clip(codes, -_MAX_CODE, _MAX_CODE).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del bits
    return finite(codes.astype(jnp.float32) * params['scale'])

  zero, infinity = jnp.zeros(()), jnp.full((), jnp.inf)
  return Quantizer(fit, from_range, apply, encode, decode)
