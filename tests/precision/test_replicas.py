"""What replicas of a batch agree on."""

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision.replicas import ALONE, Replicas


def test_the_span_is_over_all_replicas_by_one_collective():
  replicas = Replicas('replicas')
  low, high = np.random.RandomState(0).randn(2, 3, 4).astype('float32')

  def span(low, high):
    return jax.vmap(replicas.span, axis_name='replicas')(low, high)

  found = span(low, high)
  for got, expected in zip(found, (low.min(0), high.max(0)), strict=True):
    np.testing.assert_array_equal(got, np.broadcast_to(expected, (3, 4)))
  traced = str(
    jax.make_jaxpr(replicas.span, axis_env=[('replicas', 3)])(low, high)
  )
  assert (traced.count('pmax'), traced.count('pmin')) == (1, 0)


def test_one_alone_spans_what_it_has():
  ends = jnp.float32(-1.0), jnp.float32(2.0)
  assert ALONE.span(*ends) == ends
