"""A learned scale that gradient descent took past 0 stands for its size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qgan_jax import quantizers

LEARNED = {'lsq': 'scale', 'lsq_plus': 'scale', 'seq': 'scale',
           'pact': 'alpha', 'apot': 'clip'}  # fmt: skip


def tensor(sign, seed=0):
  x = np.random.RandomState(seed).randn(40, 3).astype(np.float32)
  return jnp.asarray(np.abs(x) if sign == 'unsigned' else x)


def test_these_are_all_that_learn_a_scale():
  learned = {
    name: set(quantizers.by_name(name).learned) - {'signed', 'offset'}
    for name in quantizers.NAMES
    if quantizers.by_name(name).learned
  }
  # Centroids may have either sign.
  assert learned.pop('codebook') == {'centroids'}
  assert learned == {name: {key} for name, key in LEARNED.items()}


@pytest.mark.parametrize('axis', [None, -1])
@pytest.mark.parametrize('name', LEARNED)
def test_a_negative_scale_is_the_positive_one(name, axis):
  quantizer, key = quantizers.by_name(name, axis=axis), LEARNED[name]
  fit = jax.jit(quantizer.fit)

  @jax.jit
  def run(x, params, bits):
    y, back = jax.vjp(lambda x, p: quantizer.apply(x, p, bits), x, params)
    codes = quantizer.encode(x, params, bits)
    decoded = quantizer.decode(codes, params, bits)
    dx, dparams = back(jnp.cos(x))
    return (y, codes, decoded, dx), dparams

  for bits, sign in itertools.product((1.0, 3.0), ('signed', 'unsigned')):
    x = tensor(sign)
    params = fit(x, bits)
    params[key] *= 0.6  # So that some values clip.
    expected, slopes = run(x, params, bits)
    got, turned = run(x, params | {key: -params[key]}, bits)
    for a, b in zip(got, expected, strict=True):
      np.testing.assert_array_equal(a, b)
    assert np.any(got[0])
    # x̂ depends on |s|, whose derivative by s is the sign of s.
    assert np.any(slopes[key])
    np.testing.assert_array_equal(turned.pop(key), -slopes.pop(key))
    for other, slope in slopes.items():
      np.testing.assert_array_equal(turned[other], slope)


@pytest.mark.parametrize('name', LEARNED)
def test_a_scale_of_0_is_not_stuck(name):
  quantizer, key = quantizers.by_name(name), LEARNED[name]
  x = tensor('signed')

  @jax.jit
  def run():
    params = quantizer.fit(x, 3.0)
    params[key] = jnp.zeros_like(params[key])
    y, back = jax.vjp(lambda p: quantizer.apply(x, p, 3.0), params)
    return y, back(y - x)[0][key]

  y, gradient = run()
  assert np.isfinite(y).all()
  # A larger scale brings x̂ nearer to x: the error falls as the scale grows.
  assert np.isfinite(gradient) and gradient < 0


@pytest.mark.parametrize('learning_rate', [0.01, 0.1])
def test_plain_adam_may_take_a_scale_past_0(learning_rate):
  """As in a loop of one's own, without the optimizer made for scales."""
  quantizer = quantizers.by_name('lsq')
  x = 0.1 * tensor('signed')
  params = jax.jit(quantizer.fit)(x, 4.0)
  optimizer = optax.adam(learning_rate)
  state = optimizer.init(params)
  negative = 0

  @jax.jit
  def step(params, state):
    # Pulls every output to 0, as a decay in the loss would.
    def loss(params):
      return jnp.sum(jnp.square(quantizer.apply(x, params, 4.0)))

    updates, state = optimizer.update(jax.grad(loss)(params), state)
    params = optax.apply_updates(params, updates)
    return params, state, quantizer.apply(x, params, 4.0)

  for _ in range(30):
    params, state, got = step(params, state)
    scale = float(params['scale'])
    negative += scale < 0
    steps = np.float64(x) / abs(scale)
    # Not where float32 may round a half the other way.
    clear = np.abs(np.abs(steps) % 1 - 0.5) > 1e-4
    expected = np.clip(np.rint(steps), -8, 7) * abs(scale)
    np.testing.assert_allclose(
      np.asarray(got)[clear], expected[clear], rtol=1e-5, atol=1e-7
    )
  assert negative
