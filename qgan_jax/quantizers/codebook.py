"""A codebook: weights share the values of a few centroids."""

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Params, Quantizer
from qgan_jax.quantizers.ranges import finite, tensor_range
from qgan_jax.quantizers.straight_through import straight_through

MAX_BITS = 8
_SIZE = 2**MAX_BITS
_ITERATIONS = 20


def _number(bits: Array) -> Array:
  """How many centroids there are, at most 2^MAX_BITS."""
  width = jnp.clip(jnp.asarray(bits, jnp.float32), 1, MAX_BITS)
  return jnp.exp2(width).round()


def _ascending(centroids: Array, bits: Array) -> Array:
  """The 2ⁿ that count, ascending, then infinities."""
  used = jnp.arange(_SIZE) < _number(bits)
  return jnp.sort(jnp.where(used, centroids, jnp.inf))


def _nearest(x: Array, ascending: Array) -> Array:
  """Index of the nearest of the ascending centroids, int32."""
  # Halved first: the sum of huge values would overflow.
  bounds = ascending[1:] / 2 + ascending[:-1] / 2
  index = jnp.searchsorted(
    bounds, x.astype(jnp.float32), method='scan_unrolled'
  )
  return index.astype(jnp.int32)


def codebook() -> Quantizer:
  """x̂ is the nearest of 2ⁿ centroids, which are learned.

  Han et al. (Deep Compression), https://arxiv.org/abs/1510.00149: k-means with
  20 Lloyd iterations, started from centroids evenly spaced over the tensor's
  range, which works best in the paper. A centroid's gradient is the sum over
  the values that share it (section 3.3). x passes its own gradient straight
  through, so values can still change centroids.

  Params hold 256 centroids at every width, of which 2ⁿ are used. Codes number
  these in ascending order.

  Returns:
    A `Quantizer` for 1 to 8 bits, with one codebook for a tensor; more bits
    give the codebook of 8. From a range, centroids are evenly spaced.
  """

  def from_range(low: Array, high: Array, bits: Array) -> Params:
    place = jnp.arange(_SIZE) / (_number(bits) - 1)
    place = jnp.minimum(place, 1.0)  # What does not count is the last again.
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    return {'centroids': low * (1 - place) + high * place}

  def fit(x: Array, bits: Array) -> Params:
    x = jax.lax.stop_gradient(x).astype(jnp.float32).ravel()
    low, high = tensor_range(x)
    start = from_range(low, high, bits)['centroids']
    last = _number(bits).astype(jnp.int32) - 1

    def lloyd(_, centroids: Array) -> Array:
      index = _nearest(x, _ascending(centroids, bits))
      counts = jnp.zeros(_SIZE).at[index].add(1.0)
      share = jnp.maximum(counts, 1.0)
      # Divided first: the sum of huge values would overflow.
      means = jnp.zeros(_SIZE).at[index].add(x / share[index])
      centroids = jnp.where(counts > 0, finite(means), centroids)
      return jnp.where(jnp.arange(_SIZE) > last, centroids[last], centroids)

    return {'centroids': jax.lax.fori_loop(0, _ITERATIONS, lloyd, start)}

  def encode(x: Array, params: Params, bits: Array) -> Array:
    return _nearest(x, _ascending(params['centroids'], bits))

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    return _ascending(params['centroids'], bits)[codes]

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    # The centroids' gradient comes through `decode`, a gather: its transpose
    # sums over what shares one. What is added to x̂ is 0.
    shared = y - jax.lax.stop_gradient(y)
    return straight_through(x, y, jnp.ones(())) + shared.astype(x.dtype)

  return Quantizer(
    fit, from_range, apply, encode, decode, ('centroids',), most_bits=MAX_BITS
  )
