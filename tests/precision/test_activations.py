import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.precision import Bits, make_precision, Precision, QuantizerSpec
from qgan_jax.precision.gradients import quantize_cotangent
from qgan_jax.precision.replicas import Replicas
from qgan_jax.quantizers import ACTIVATIONS, by_name

KEY = jax.random.PRNGKey(0)


class Identity(nn.Module):
  """One layer whose output is its quantized input."""

  @nn.compact
  def __call__(self, x):
    eye = nn.initializers.constant(jnp.eye(x.shape[-1]))
    return nn.Dense(x.shape[-1], use_bias=False, kernel_init=eye)(x)


def precision(ranges, activations='affine', momentum=0.9):
  return make_precision(
    weights='uniform',
    activations=activations,
    per_channel=True,
    ranges=ranges,
    momentum=momentum,
    input_bits=1,
  )


def quantized(p, x, n, ranges=None, **kwargs):
  bits = Bits(jnp.float32(32), jnp.float32(n))
  variables = Identity().init(KEY, x)
  return p.apply(Identity(), variables, ranges or {}, bits, x, **kwargs)


@pytest.mark.parametrize('n', [1, 2, 3, 4, 8])
def test_ranges_of_least_error(n):
  # After a ReLU, with an outlier: what min-max spends its levels on.
  x = nn.relu(jax.random.normal(KEY, (64, 63))).at[0, 0].set(20.0)
  by_range = {}
  for name in ('moving', 'mse'):
    y, ranges = quantized(precision(name), x, n)
    by_range[name] = float(jnp.mean((y - x) ** 2))
    low, high = ranges['Dense_0']
    assert low == 0
    if name == 'mse':
      # The best of the nine parts that are tried, by NumPy.
      def error(c):
        scale = 20 * c / (2**n - 1)
        codes = np.clip(np.rint(np.asarray(x, np.float64) / scale), 0, 2**n - 1)
        return np.mean((codes * scale - x) ** 2)

      parts = 2.0 ** (-np.arange(9) / 3)
      best = min(map(error, parts))
      assert error(float(high) / 20) <= best * 1.001
  assert by_range['mse'] <= by_range['moving'] * 1.001
  if n <= 4:
    assert by_range['mse'] < 0.9 * by_range['moving']


def test_ranges_of_least_error_are_moving_averages_and_the_same_on_shards():
  p, x = precision('mse'), jax.random.normal(KEY, (8, 16))
  _, first = quantized(p, x, 3)
  _, own = quantized(p, 3 * x, 3)
  _, second = quantized(p, 3 * x, 3, first, update=True)
  np.testing.assert_allclose(
    second['Dense_0'], 0.9 * first['Dense_0'] + 0.1 * own['Dense_0'], rtol=1e-5
  )
  _, frozen = quantized(p, 3 * x, 3, second)
  np.testing.assert_array_equal(frozen['Dense_0'], second['Dense_0'])

  def on_shard(x):
    return quantized(p, x, 3, replicas=Replicas('devices'))[1]['Dense_0']

  for shard in jax.vmap(on_shard, axis_name='devices')(x.reshape(4, 2, 16)):
    np.testing.assert_allclose(shard, first['Dense_0'], rtol=1e-6)


def test_fitted_ranges_are_the_quantizers_own():
  x = jax.random.normal(KEY, (8, 16))
  q, n = by_name('uniform_mse'), jnp.float32(3)
  expected = q.apply(x, q.fit(x, n), n)
  for name in ('moving', 'fitted'):  # Without a from_range, it has no other.
    y, ranges = quantized(precision(name, 'uniform_mse'), x, 3)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert ranges == {}


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_fitted_activations_are_the_same_on_one_and_two_devices(name):
  p, x = precision('fitted', name), jax.random.normal(KEY, (4, 64))
  x = x * jnp.float32([[1], [100], [1e-3], [10]])
  # What is fitted to a tensor is the same for both parts; rows are in another
  # order.
  dealt = jnp.stack([x, x[::-1]])

  def on_shard(x):
    return quantized(p, x, 4, replicas=Replicas('devices'))[0]

  found = jax.jit(jax.vmap(on_shard, axis_name='devices'))(dealt)
  whole = dealt.swapaxes(0, 1).reshape(8, 64)
  alone = jax.jit(lambda x: quantized(p, x, 4)[0])(whole)
  expected = alone.reshape(4, 2, 64).swapaxes(0, 1)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_stochastic_rounding_of_activations():
  p, x = precision('dynamic', 'stochastic'), jnp.full((2000, 4), 0.3)
  x = x.at[:, 0].set(1.0)
  nearest, _ = quantized(p, x, 2)  # Levels −1, 0, 1.
  np.testing.assert_array_equal(np.unique(nearest), [0, 1])
  y, _ = quantized(p, x, 2, key=KEY)
  # 6000 draws of probability 0.3: five standard deviations, 6 in 10⁷.
  assert abs(float(y[:, 1:].mean()) - 0.3) < 5 * np.sqrt(0.21 / 6000)

  def on_shard(x):
    return quantized(p, x, 2, key=KEY, replicas=Replicas('devices'))[0]

  # Dealt out in turn, and taken together again.
  dealt = x.reshape(500, 4, 4).swapaxes(0, 1)
  shards = jax.vmap(on_shard, axis_name='devices')(dealt)
  np.testing.assert_array_equal(shards.swapaxes(0, 1).reshape(y.shape), y)


def test_gradients_are_rounded_for_each_example():
  q, n = by_name('dorefa_gradient'), jnp.float32(4)
  y = jax.random.normal(KEY, (3, 5))
  g = jax.random.normal(jax.random.PRNGKey(1), (3, 5)) * jnp.float32(
    [[1], [100], [1e-4]]
  )
  out, pull_back = jax.vjp(lambda y: quantize_cotangent(q, y, n, None), y)
  np.testing.assert_array_equal(out, y)
  got = np.asarray(pull_back(g)[0], np.float64)
  top = np.abs(np.asarray(g, np.float64)).max(1, keepdims=True)
  r = np.asarray(g, np.float64) / (2 * top) + 0.5  # Eq. 12, without noise.
  expected = 2 * top * (np.rint(15 * r) / 15 - 0.5)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)
  keys = jax.random.split(KEY, 3)
  average = np.mean(
    [
      jax.vjp(
        lambda y, i=i: quantize_cotangent(
          q, y, n, jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        ),
        y,
      )[1](g)[0]
      for i in range(200)
    ],
    0,
  )
  # A step is 2·max/15; its uniform error's deviation, over √200 draws, × 5.
  bound = 5 * (2 * top / 15) * 0.5 / np.sqrt(200)
  assert np.all(np.abs(average - g) < bound)
  float_bits = jnp.float32(32)
  _, pull_back = jax.vjp(
    lambda y: quantize_cotangent(q, y, float_bits, None), y
  )
  np.testing.assert_array_equal(pull_back(g)[0], g)


def test_gradient_penalty_through_rounded_gradients():
  """½‖∂D/∂x‖² of D(x) = v·W x: linear in the rounded v, so by hand."""
  p = Precision(gradients=QuantizerSpec('uniform'))
  n = Bits(32.0, 32.0, jnp.float32(3))
  x, v = jnp.ones((1, 4)), jnp.float32([[1.0, -0.4, 0.9]])
  module = nn.Dense(3, use_bias=False)
  variables = module.init(KEY, x)

  def penalty(variables):
    def d(x):
      return jnp.vdot(v, p.apply(module, variables, {}, n, x)[0])

    return 0.5 * jnp.sum(jax.grad(d)(x) ** 2)

  rounded = jnp.rint(v * 3) / 3  # Three bits, max 1: codes −3 … 3.
  w = variables['params']['kernel']
  got = jax.grad(penalty)(variables)['params']['kernel']
  expected = jax.grad(lambda w: 0.5 * jnp.sum((rounded @ w.T) ** 2))(w)
  np.testing.assert_allclose(got, expected, rtol=1e-5)
