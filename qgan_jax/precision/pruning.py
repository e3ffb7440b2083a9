"""Pruning by magnitude: which weights are kept.

A mask is computed from the weights and a traced sparsity alone. So no state has
to store masks, and a schedule of sparsities is compiled once.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
Weights = dict[str, Array]


def threshold(magnitudes: Array, count: Array) -> Array:
  """The least t such that at least `count` of the magnitudes are ≤ t.

  The result is exact and needs no sort: the bits of non-negative float32
  numbers, read as integers, are in the same order as the numbers, so 31 steps
  of bisection find t.

  Args:
    magnitudes: float32 of any shape, ≥ 0.
    count: how many, int32; traced.

  Returns:
    t, float32; −1, which is below every magnitude, if count is 0.
  """
  codes = jax.lax.bitcast_convert_type(magnitudes, jnp.int32)

  def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = bounds
    middle = low + (high - low) // 2
    enough = jnp.sum(codes <= middle) >= count
    return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

  infinity = jax.lax.bitcast_convert_type(jnp.float32(jnp.inf), jnp.int32)
  low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.int32(0), infinity))
  found = jax.lax.bitcast_convert_type(low, jnp.float32)
  return jnp.where(count > 0, found, -1.0)


def layer_masks(weights: Weights, sparsity: Array) -> Weights:
  """Masks that prune every layer to the same sparsity.

  Args:
    weights: by module path.
    sparsity: share of each layer's weights to remove, in [0, 1], those of least
      magnitude first. Weights of equal magnitude are removed together, but of a
      layer that starts with zeros alone, none.

  Returns:
    Masks by module path, of the weights' shapes and dtypes: 1 for weights that
    are kept, 0 for the others.
  """

  def mask(w: Array) -> Array:
    magnitudes = jnp.abs(jax.lax.stop_gradient(w).astype(jnp.float32))
    count = jnp.round(sparsity * w.size).astype(jnp.int32)
    kept = magnitudes > threshold(magnitudes, count)
    # Nothing that is masked gets a gradient, so zeros would stay zeros.
    return (kept | ~magnitudes.any()).astype(w.dtype)

  return {path: mask(w) for path, w in weights.items()}
