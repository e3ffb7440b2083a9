"""PACT: a learned clipping level for activations."""

import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  finite,
  largest,
  magnitude,
  positive,
  step_size,
  tensor_range,
)
from qgan_jax.quantizers.straight_through import straight_through_learned
from qgan_jax.quantizers.uniform import (
  codes_affine,
  codes_symmetric,
  round_to_codes,
)


def pact(*, axis: Axis = None) -> Quantizer:
  """Clips, y = ½(|x| − |x − α| + α), and rounds to n bits; α is learned.

  Choi et al. (PACT), https://arxiv.org/abs/1805.06085, eqs. 1 to 3: ∂y/∂α is
  1[x ≥ α]. x passes its gradient where 0 ≤ x ≤ α. Unlike in the paper, this
  includes x = α: all white pixels of an image are there, and otherwise a
  penalty on the gradient with respect to the image would not see them.

  The paper clips the output of a ReLU. If a tensor had negative values when its
  params were made (after a leaky ReLU; latents), params['signed'] is 1 and
  never changes, and both sides are treated alike: values are clipped to
  [−α, α], codes are symmetric, and ∂y/∂α is sign(x) outside. α starts at the
  largest magnitude.

  Args:
    axis: the axis of which each index has its own α; None for one.

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    del bits
    return {
      'alpha': positive(largest(low, high)),
      'signed': (jnp.min(low) < 0).astype(jnp.float32),
    }

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  def grid(params: Params, bits: Array) -> tuple[Array, ...]:
    """(scale, zero_point, qmin, qmax)."""
    signed = params['signed'] > 0
    zero_point, *ends = codes_symmetric(bits)
    zero_point = jnp.where(signed, zero_point, 0.0)
    qmin, qmax = (
      jnp.where(signed, of_both, of_one)
      for of_both, of_one in zip(ends, codes_affine(bits), strict=True)
    )
    # Signed, one bit: the levels ±α/2 halve [−α, α] into equal cells.
    alpha = step_size(params['alpha'])
    return positive(alpha / jnp.maximum(qmax, 1.0)), zero_point, qmin, qmax

  def encode(x: Array, params: Params, bits: Array) -> Array:
    return round_to_codes(x, *grid(params, bits)).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    scale, zero_point, _, _ = grid(params, bits)
    return finite((codes.astype(jnp.float32) - zero_point) * scale)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(round_to_codes(x, *grid(params, bits)), params, bits)
    alpha = magnitude(params['alpha'])
    signed = params['signed'] > 0
    above = x >= alpha
    below = signed & (x <= -alpha)
    inside = (x >= jnp.where(signed, -alpha, 0.0)) & (x <= alpha)
    slope = above.astype(jnp.float32) - below.astype(jnp.float32)
    return straight_through_learned(
      x, {'alpha': alpha}, y, inside, {'alpha': slope}
    )

  return Quantizer(fit, from_range, apply, encode, decode, ('alpha', 'signed'))
