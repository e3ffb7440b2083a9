"""Pruning by magnitude: which weights stay.

A mask follows from the weights and a traced sparsity alone, so that no mask is
part of a state, and a schedule of sparsities compiles once.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
Weights = dict[str, Array]


def threshold(magnitudes: Array, count: Array) -> Array:
  """The least t with at least `count` of the magnitudes at or below it.

  Exact, and without a sort: the bits of a float32 ≥ 0, read as an integer, are
  in the order of the floats, and 31 halvings find one among them.

  Args:
    magnitudes: float32 of any shape, ≥ 0.
    count: how many, int32; traced.

  Returns:
    t, float32; −1 where count is 0, below every magnitude.
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
  """Masks that prune every layer alike.

  Args:
    weights: by module path.
    sparsity: share of each layer's weights that goes, the smallest first, in
      [0, 1]; equal magnitudes go together.

  Returns:
    Masks by module path, of the weights' shapes and dtypes: 1 stays, 0 goes.
  """

  def mask(w: Array) -> Array:
    magnitudes = jnp.abs(jax.lax.stop_gradient(w).astype(jnp.float32))
    count = jnp.round(sparsity * w.size).astype(jnp.int32)
    return (magnitudes > threshold(magnitudes, count)).astype(w.dtype)

  return {path: mask(w) for path, w in weights.items()}
