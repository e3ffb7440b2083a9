import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.precision import Bits, Precision, pruning, QuantizerSpec

RNG = np.random.default_rng(0)
WEIGHTS = {
  'a': jnp.float32(RNG.standard_normal((7, 9))),
  'b': jnp.float32(10 * RNG.standard_normal((3, 3, 5))),
}


@pytest.mark.parametrize('sparsity', [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_smallest_go_by_layer(sparsity):
  masks = jax.jit(pruning.layer_masks)(WEIGHTS, jnp.float32(sparsity))
  for path, w in WEIGHTS.items():
    magnitudes = np.abs(np.asarray(w)).ravel()
    gone = np.argsort(magnitudes)[: round(sparsity * w.size)]
    expected = np.ones(w.size)
    expected[gone] = 0
    np.testing.assert_array_equal(masks[path].ravel(), expected)


def test_threshold_is_exact_for_equal_tiny_and_no_magnitudes():
  for x in ([0.0, 0, 0, 1], [1e-45, 1e-40, 3.0], [3e38, 1.0], [2.0]):
    x = np.float32(x)
    for count in range(len(x) + 1):
      got = pruning.threshold(jnp.asarray(x), jnp.int32(count))
      assert got == (np.sort(x)[count - 1] if count else -1)


@pytest.mark.parametrize('bits', [1, 4, 32])
def test_pruned_weights_are_0_whatever_quantizes_the_rest(bits):
  params = {'a': {'kernel': WEIGHTS['a'], 'bias': jnp.ones(9)}}
  precision = Precision(QuantizerSpec('uniform', -1))
  n = Bits(jnp.float32(bits), jnp.float32(32), sparsity=jnp.float32(0.6))

  def quantize(params):
    return precision.quantize_weights(params, n)['a']['kernel']

  got = quantize(params)
  mask = np.asarray(precision.masks(params, n)['a'])
  assert np.all(got[mask == 0] == 0)
  if bits != 4:  # At 4 bits, small ones may round to 0.
    assert np.all(got[mask == 1] != 0)
  # Zhu and Gupta: what is masked gets no gradient; the rest, straight through.
  gradient = jax.grad(lambda p: quantize(p).sum())(params)['a']['kernel']
  assert np.all(gradient[mask == 0] == 0)
  np.testing.assert_array_equal(gradient[mask == 1], 1)


def test_without_sparsity_nothing_changes():
  params = {'a': {'kernel': WEIGHTS['a']}}
  assert Precision().quantize_weights(params, Bits(32, 32)) is params


def test_a_layer_of_zeros_learns():
  """As the last layer of a residual block that starts as the identity."""
  params = {'a': {'kernel': jnp.zeros((6, 4))}}
  precision = Precision(QuantizerSpec('lsq', -1))
  n = Bits(jnp.float32(4), jnp.float32(32), sparsity=jnp.float32(0.5))

  def loss(params):
    return precision.quantize_weights(params, n)['a']['kernel'].sum()

  assert np.all(jax.grad(loss)(params)['a']['kernel'] == 1)
  moved = {'a': {'kernel': jnp.zeros((6, 4)).at[:2].set(1.0)}}
  np.testing.assert_array_equal(
    precision.masks(moved, n)['a'], moved['a']['kernel']
  )
