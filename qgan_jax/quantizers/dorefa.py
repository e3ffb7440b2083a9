"""DoReFa's three quantizers: of weights, of activations, of gradients.

Zhou et al., https://arxiv.org/abs/1606.06160. All use quantize_n(r) = round((2ⁿ
− 1) r) / (2ⁿ − 1) for r in [0, 1].
"""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.ranges import (
  largest,
  mean_magnitude,
  positive,
  tensor_range,
)
from qgan_jax.quantizers.straight_through import straight_through


def _steps(bits: Array) -> Array:
  return jnp.exp2(jnp.asarray(bits, jnp.float32)).round() - 1


def dorefa(*, axis: Axis = None) -> Quantizer:
  """Weights: x̂ = 2 · quantize_n(tanh x / (2 max|tanh x|) + ½) − 1.

  Zhou et al. (DoReFa), https://arxiv.org/abs/1606.06160, eqs. 7 to 9. The
  gradient is straight-through for the rounding and exact for tanh (and so is
  the second derivative); max|tanh x| is a constant. One bit is sign(x) ·
  mean|x|, straight-through.

  From 2 bits on, x̂ spans [−1, 1] whatever the size of x, as in the paper. So
  the layer needs a norm after it.

  Args:
    axis: the axis of which each index has its own maximum and mean; None for
      one of each.

  Returns:
    A `Quantizer` for 1 to 16 bits.
  """

  def fit(x: Array, bits: Array) -> Params:
    del bits
    top = largest(*tensor_range(jnp.tanh(x.astype(jnp.float32)), axis))
    return {'largest': positive(top), 'mean': mean_magnitude(x, axis)}

  def position(x: Array, params: Params, bits: Array) -> Array:
    """What is rounded: r · (2ⁿ − 1)."""
    r = jnp.tanh(x.astype(jnp.float32)) / (2 * params['largest']) + 0.5
    return jnp.clip(r, 0.0, 1.0) * _steps(bits)

  def rounded(x: Array, params: Params, bits: Array) -> Array:
    return jnp.where(
      _steps(bits) < 2, x >= 0, jnp.round(position(x, params, bits))
    )

  def encode(x: Array, params: Params, bits: Array) -> Array:
    return rounded(x, params, bits).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    signs = 2.0 * codes.astype(jnp.float32) - 1.0
    spread = 2.0 * (codes.astype(jnp.float32) / _steps(bits)) - 1.0
    return jnp.where(_steps(bits) < 2, signs * params['mean'], spread)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(rounded(x, params, bits), params, bits)
    wide = x.astype(jnp.float32)
    many = straight_through(jnp.tanh(wide) / params['largest'], y, jnp.ones(()))
    one = straight_through(wide, y, jnp.ones(()))
    return jnp.where(_steps(bits) < 2, one, many).astype(x.dtype)

  return Quantizer(fit, None, apply, encode, decode)


def dorefa_activation() -> Quantizer:
  """Activations: quantize_n(clip(x, 0, 1)).

  Zhou et al. (DoReFa), https://arxiv.org/abs/1606.06160, section 2.4:
  straight-through in [0, 1]. The range is fixed, so there is nothing to fit;
  the network has to keep its activations within it.

  Returns:
    A `Quantizer` for 1 to 16 bits, without params.
  """

  def fit(x: Array, bits: Array) -> Params:
    del x, bits
    return {}

  def rounded(x: Array, bits: Array) -> Array:
    return jnp.round(jnp.clip(x.astype(jnp.float32), 0.0, 1.0) * _steps(bits))

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del params
    return rounded(x, bits).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del params
    return codes.astype(jnp.float32) / _steps(bits)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(rounded(x, bits), params, bits)
    return straight_through(x, y, (x >= 0) & (x <= 1))

  return Quantizer(fit, None, apply, encode, decode)


def dorefa_gradient(*, axis: Axis = None) -> Quantizer:
  """Gradients: 2 max|g| · (quantize_n(g / (2 max|g|) + ½ + noise) − ½).

  Zhou et al. (DoReFa), https://arxiv.org/abs/1606.06160, eq. 12. The noise u /
  (2ⁿ − 1), u ~ U(−½, ½), makes the rounding unbiased: E[ĝ] = g.

  Args:
    axis: the axis of which each index has its own maximum: 0 for one per
      example of a batch, as in the paper; None for one.

  Returns:
    A `Quantizer` for 1 to 16 bits. Without a key, `apply` adds no noise; nor
    does `encode`.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    del bits
    top = largest(low, high)
    # No level is 0: a gradient of zeros stays 0 by its maximum alone.
    return {'largest': jnp.where(top > 0, positive(top), 0.0)}

  def fit(x: Array, bits: Array) -> Params:
    return from_range(*tensor_range(x, axis), bits)

  def rounded(
    x: Array, params: Params, bits: Array, key: Array | None
  ) -> Array:
    # Halved first: twice the largest float32 would overflow.
    unit = x.astype(jnp.float32) / positive(params['largest'])
    r = jnp.clip(unit, -1, 1) / 2 + 0.5
    position = r * _steps(bits)
    if key is not None:
      position += jax.random.uniform(key, x.shape, minval=-0.5, maxval=0.5)
    return jnp.clip(jnp.round(position), 0.0, _steps(bits))

  def encode(x: Array, params: Params, bits: Array) -> Array:
    return rounded(x, params, bits, None).astype(jnp.int32)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    r = codes.astype(jnp.float32) / _steps(bits)
    return params['largest'] * (2 * r - 1)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    y = decode(rounded(x, params, bits, key), params, bits)
    return straight_through(x, y, jnp.abs(x) <= params['largest'])

  return Quantizer(fit, from_range, apply, encode, decode, stochastic=True)
