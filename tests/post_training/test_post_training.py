"""Each step against its definition, on a network of a user's own."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import post_training
from qgan_jax.post_training import allocation
from qgan_jax.post_training.watch import watch
from qgan_jax.precision import Bits, Precision, Quantized, QuantizerSpec
from qgan_jax.quantize import quantize

KEY = jax.random.PRNGKey(0)


class Net(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Conv(8, (3, 3), name='conv')(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.7)(x)
    x = nn.relu(x)
    x = nn.ConvTranspose(4, (3, 3), (2, 2), name='up')(x)
    return nn.Dense(3, name='dense')(nn.relu(x).mean((1, 2)))


@pytest.fixture(scope='module')
def inputs():
  # Not centred: a quantized kernel shifts the means of what it gives.
  return np.asarray(jax.random.normal(KEY, (64, 6, 6, 4)) + 0.5)


@pytest.fixture(scope='module')
def variables(inputs):
  variables = Net().init(KEY, inputs[:2])
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(0)
  return jax.tree.unflatten(
    tree, [x + 0.1 * rng.standard_normal(x.shape, np.float32) for x in leaves]
  ) | {
    'batch_stats': {
      'BatchNorm_0': {
        'mean': rng.standard_normal(8, np.float32),
        'var': rng.uniform(0.5, 2, 8).astype('float32'),
      }
    }
  }


def make(variables, weights=3, activations=4, quantizer='lsq'):
  precision = Precision(
    QuantizerSpec(quantizer, axis=-1), QuantizerSpec('affine'), input_bits=1
  )
  bits = Bits(jnp.float32(weights), jnp.float32(activations))
  return Quantized(Net(), precision, bits, variables)


def test_the_call_of_two_bound_networks(variables, inputs):
  g = Net().bind(variables)
  a, b = quantize(g, Net().bind(variables), bit_width=4)
  w = np.float64(variables['params']['conv']['kernel'])
  scale = np.abs(w).max((0, 1, 2)) / 7
  got = a.variables['params']['conv']
  np.testing.assert_allclose(
    got['kernel'], np.rint(w / scale) * scale, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(
    got['bias'], variables['params']['conv']['bias']
  )
  assert not np.allclose(a(inputs), g(inputs), atol=1e-4)
  np.testing.assert_array_equal(a(inputs), b(inputs))


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 8])
def test_scales_leave_the_least_error(variables, bits):
  fitted = post_training.fit_weights(make(variables, bits))
  w = np.float64(variables['params']['conv']['kernel'])
  # Codes of LSQ; at one bit ±½.
  low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

  def error(scale):
    if bits == 1:
      x = np.where(w > 0, 0.5, -0.5) * scale
    else:
      x = np.clip(np.rint(w / scale), low, high) * scale
    return ((x - w) ** 2).sum((0, 1, 2))

  top = np.abs(w).max((0, 1, 2)) * (2 if bits == 1 else 1) / max(high, 1)
  best = np.min([error(top * r) for r in np.linspace(0.02, 1.2, 600)], 0)
  scale = np.float64(fitted.learned['weights']['conv']['scale'])
  # With 36 weights on 256 levels, the least of 600 tries is luck.
  assert (error(scale) <= best * (1.5 if bits == 8 else 1.1)).all()


def layer_inputs(network, inputs):
  run = network.with_float_activations()
  params = run.weights(network.variables['params'])
  seen = watch(lambda: run.run(params, inputs))
  return {path: np.float64(x) for path, ((x, _),) in seen.items()}


def test_ranges(variables, inputs):
  network = post_training.fit_weights(make(variables))
  seen = layer_inputs(network, inputs)
  assert list(seen) == ['conv', 'up', 'dense']
  ranges = {
    method: post_training.activation_ranges(
      network, inputs, method=method, batch_size=16
    )
    for method in post_training.RANGE_METHODS
  }
  for path, x in seen.items():
    np.testing.assert_allclose(
      ranges['minmax'][path], (x.min(), x.max()), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
      ranges['percentile'][path],
      np.quantile(x, [1e-4, 1 - 1e-4]),
      rtol=0.05, atol=1e-3,
    )  # fmt: skip

    def error(bounds, x=x):
      low, high = min(bounds[0], 0), max(bounds[1], 0)
      s = (high - low) / 15
      z = np.rint(-low / s)
      q = np.clip(np.rint(x / s + z), 0, 15)
      return np.mean((s * (q - z) - x) ** 2)

    full = np.array([x.min(), x.max()])
    best = min(error(full * r) for r in np.linspace(0.2, 1, 400))
    assert error(np.float64(ranges['mse'][path])) <= 1.02 * best
    # Clips the tail, keeps the bulk.
    width = np.ptp(np.float64(ranges['kl'][path]))
    assert np.std(x) < width <= np.ptp(full) * 1.001


def test_kl_cuts_off_a_far_outlier():
  class Identity(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(1, name='dense')(x)

  x = np.abs(np.random.default_rng(0).standard_normal((64, 512), np.float32))
  x[0, 0] = 40.0
  variables = Identity().init(KEY, x)
  network = Quantized(
    Identity(),
    Precision(activations=QuantizerSpec('affine'), input_bits=1),
    Bits(jnp.float32(32), jnp.float32(4)),
    variables,
  )
  _, high = post_training.activation_ranges(network, x, method='kl')['dense']
  assert 2 < high < 16


def test_the_networks_input_has_the_range_of_its_own_bits(variables, inputs):
  def ranges(activations, input_bits):
    network = make(variables, activations=activations)
    precision = dataclasses.replace(network.precision, input_bits=input_bits)
    return post_training.activation_ranges(
      post_training.fit_weights(network.replace(precision=precision)), inputs
    )

  kept, eight, four = ranges(4, 8), ranges(8, 1), ranges(4, 1)
  np.testing.assert_array_equal(kept['conv'], eight['conv'])
  assert (kept['conv'] != four['conv']).any()
  np.testing.assert_array_equal(kept['up'], four['up'])


def test_bias_correction_restores_the_means(variables, inputs):
  network = post_training.fit_weights(make(variables, 2))
  corrected = post_training.correct_biases(network, inputs, batch_size=64)
  params = variables['params']
  expected = watch(lambda: network.in_float().run(params, inputs))

  def worst(network):
    run = network.with_float_activations()
    weights = run.weights(network.variables['params'])
    seen = watch(lambda: run.run(weights, inputs))
    return max(
      float(np.abs(np.mean(y - wanted, range(y.ndim - 1))).max())
      for path, ((_, y),) in seen.items()
      for _, wanted in expected[path]
    )

  assert worst(network) > 0.05
  assert worst(corrected) < 1e-5


def test_a_pruned_network_is_compared_with_itself_in_float(variables, inputs):
  network = make(variables, 8)
  network = network.replace(
    bits=network.bits._replace(sparsity=jnp.float32(0.75))
  )

  def prune(w):
    magnitudes = np.abs(w)
    return np.where(magnitudes > np.quantile(magnitudes, 0.75), w, 0)

  # What pruning removes is still in the variables; here it is really gone.
  pruned = jax.tree.map(
    lambda w: prune(w) if w.ndim > 1 else w, variables['params']
  )
  removed = make({**variables, 'params': pruned}, 8)

  def biases(network):
    corrected = post_training.correct_biases(
      post_training.fit_weights(network), inputs
    )
    params = corrected.variables['params']
    return {path: params[path]['bias'] for path in ('conv', 'up', 'dense')}

  expected = biases(removed)
  for path, bias in biases(network).items():
    np.testing.assert_allclose(bias, expected[path], atol=1e-6)
  rows = post_training.sensitivity(network, inputs, widths=(2,))
  wanted = post_training.sensitivity(removed, inputs, widths=(2,))
  for row, other in zip(rows, wanted, strict=True):
    assert row._replace(error=0) == other._replace(error=0)
    np.testing.assert_allclose(row.error, other.error, rtol=1e-3)


def test_batch_statistics_are_those_of_the_quantized_network(variables, inputs):
  network = post_training.fit_weights(make(variables, 2))
  moved = network.with_batch_stats(post_training.batches((inputs,), 16))
  run = network.with_float_activations()
  weights = run.weights(variables['params'])
  ((_, y),) = watch(lambda: run.run(weights, inputs))['conv']
  y = np.float64(y)
  parts = y.reshape(4, -1, 8)
  stats = moved.variables['batch_stats']['BatchNorm_0']
  # Activations are quantized too, so that the last digits are not these.
  np.testing.assert_allclose(stats['mean'], y.mean((0, 1, 2)), atol=0.1)
  np.testing.assert_allclose(stats['var'], parts.var(1).mean(0), rtol=0.2)
  before = variables['batch_stats']['BatchNorm_0']
  assert np.abs(before['mean'] - y.mean((0, 1, 2))).max() > 0.5
  without = run.replace(
    variables={'params': variables['params']}, module=nn.Dense(1)
  )
  assert without.with_batch_stats([(inputs,)]) is without


def test_adaround_beats_rounding_to_nearest(variables, inputs):
  nearest = post_training.fit_weights(make(variables, 3))
  rounded = post_training.adaround(nearest, inputs, steps=150, batch_size=32)
  expected = nearest.in_float().run(variables['params'], inputs)

  def error(network):
    run = network.with_float_activations()
    got = run.run(run.weights(network.variables['params']), inputs)
    return float(jnp.mean(jnp.square(got - expected)))

  assert error(rounded) < 0.7 * error(nearest)
  for path in ('conv', 'up', 'dense'):
    w = np.float64(variables['params'][path]['kernel'])
    new = np.float64(rounded.variables['params'][path]['kernel'])
    scale = np.float64(nearest.learned['weights'][path]['scale'])
    codes = new / scale
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    inside = np.clip(w / scale, -4, 3)
    assert (np.abs(codes - inside) < 1 + 1e-4).all()
    # Not what rounding to nearest gives, and no weight leaves its grid.
    assert (np.rint(codes) != np.clip(np.rint(w / scale), -4, 3)).any()
  quantized = rounded.weights(rounded.variables['params'])
  np.testing.assert_allclose(
    quantized['up']['kernel'],
    rounded.variables['params']['up']['kernel'],
    rtol=1e-5,
  )


class Twice(nn.Module):
  """One layer, first of large inputs and then of small ones."""

  @nn.compact
  def __call__(self, x):
    shared = nn.Dense(4, name='shared')
    return shared(nn.tanh(shared(8 * x)))


@pytest.mark.parametrize('name', ['affine', 'lsq'])
def test_a_shared_layer_is_fitted_to_all_of_its_calls(name):
  x = np.asarray(jax.random.normal(KEY, (64, 4)))
  variables = Twice().init(KEY, x)
  network = post_training.quantize(
    (Twice(), variables), activation_quantizer=name, calibrate=x
  )
  if name == 'affine':
    reached = float(np.abs(network.ranges['shared']).max())
  else:
    reached = 255 * float(network.learned['activations']['shared']['scale'])
  assert reached > 8
  expected = Twice().apply(variables, x)
  for found in (network, post_training.adaround(network, x, steps=2)):
    assert jnp.abs(found(x) - expected).max() < 0.1 * jnp.abs(expected).max()


class Named(nn.Module):
  """Has a parameter with slashes in its name, that of a norm of weights."""

  @nn.compact
  def __call__(self, x):
    return nn.WeightNorm(nn.Dense(4, name='dense'))(x)


def test_names_with_slashes_stay_as_they_are():
  x = np.asarray(jax.random.normal(KEY, (64, 4)))
  variables = Named().init(KEY, x)
  network = post_training.quantize((Named(), variables), calibrate=x)
  expected = Named().apply(variables, x)
  assert jnp.abs(network(x) - expected).max() < 0.1
  rounded = post_training.adaround(network, x, steps=2)
  given, found = map(jax.tree.structure, (variables, rounded.variables))
  assert given == found


def test_adaround_needs_a_scale_that_stays(variables, inputs):
  with pytest.raises(ValueError, match='no scale that stays'):
    post_training.adaround(
      make(variables, quantizer='uniform'), inputs, steps=1
    )


def test_sensitivity_by_hand(variables, inputs):
  network = make(variables, quantizer='uniform')
  rows = post_training.sensitivity(network, inputs, widths=(2, 4))
  assert {(r.layer, r.bits) for r in rows} == set(
    itertools.product(('conv', 'up', 'dense'), (2, 4))
  )
  row = next(r for r in rows if (r.layer, r.bits) == ('up', 2))
  w = np.float64(variables['params']['up']['kernel'])
  scale = np.abs(w).max((0, 1, 2))
  params = dict(variables['params'])
  params['up'] = params['up'] | {
    'kernel': jnp.float32(np.rint(w / scale) * scale)
  }
  y = np.float64(Net().apply(variables, inputs))
  changed = np.float64(Net().apply({**variables, 'params': params}, inputs))
  np.testing.assert_allclose(
    row.error, np.mean((changed - y) ** 2) / y.var(), rtol=1e-3
  )
  assert row.size == w.size * 2 / 8


def test_sensitivity_of_a_network_that_gives_two_arrays():
  class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(3, name='mean')(x), nn.Dense(3, name='spread')(x)

  x = jax.random.normal(KEY, (64, 4))
  variables = Encoder().init(KEY, x)
  network = dataclasses.replace(
    make(variables, quantizer='uniform'), module=Encoder()
  )
  rows = post_training.sensitivity(network, x, widths=(2,))
  y = np.concatenate(Encoder().apply(variables, x))
  w = np.float64(variables['params']['mean']['kernel'])
  scale = np.abs(w).max(0)
  error = np.float64(x) @ (np.rint(w / scale) * scale - w)
  assert [row.layer for row in rows] == ['mean', 'spread']
  np.testing.assert_allclose(
    rows[0].error, (error**2).sum() / y.size / y.var(), rtol=1e-3
  )


def test_allocation_is_the_best_there_is():
  rng = np.random.default_rng(0)
  widths, counts = (1, 2, 3, 4), {'a': 8, 'b': 80, 'c': 800}
  rows = [
    allocation.Sensitivity(layer, n, weight * 4.0**-n, count * n / 8)
    for (layer, count), weight in zip(
      counts.items(), rng.uniform(1, 50, 3), strict=True
    )
    for n in widths
  ]
  by = {(r.layer, r.bits): r for r in rows}

  def total(bits):
    chosen = [by[pair] for pair in zip(counts, bits, strict=True)]
    return sum(r.error for r in chosen), sum(r.size for r in chosen)

  # At sizes that the greedy ladder reaches exactly, nothing else is better.
  for size in (111, 200, 320, 444):
    bits = tuple(allocation.allocate(rows, size).values())
    error, used = total(bits)
    assert used <= size
    best = min(
      error
      for error, needed in map(total, itertools.product(widths, repeat=3))
      if needed <= used
    )
    assert error == pytest.approx(best)
  with pytest.raises(ValueError, match='too few'):
    allocation.allocate(rows, 100)


def test_rules_say_the_allocation():
  text = post_training.rules_of({'generator': {'a/b': 3, 'c': 8}})
  assert text == 'generator/weights/a/b: bits=3; generator/weights/c: bits=8'
