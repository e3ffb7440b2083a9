import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import quantizers
from qgan_jax.precision import Bits, make_precision, Precision
from qgan_jax.precision.arguments import arguments_for
from qgan_jax.precision.replicas import Replicas

KEY = jax.random.PRNGKey(0)


class Net(nn.Module):
  """A user's own: knows nothing of quantization."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Conv(8, (3, 3), feature_group_count=2)(x)
    x = nn.relu(nn.GroupNorm(4)(x))
    x = nn.ConvTranspose(4, (3, 3), (2, 2))(x)
    return nn.Dense(3)(x.mean((1, 2)))


def precision(**kwargs):
  defaults = {
    'weights': 'uniform',
    'activations': 'affine',
    'per_channel': True,
    'ranges': 'moving',
    'momentum': 0.9,
    'input_bits': 8,
  }
  return make_precision(**(defaults | kwargs))


def bits(weights, activations):
  return Bits(jnp.float32(weights), jnp.float32(activations))


@pytest.fixture(scope='module')
def net():
  x = jax.random.normal(KEY, (2, 6, 6, 4))
  return Net(), Net().init(KEY, x), x


def fake(x, n, low=None, high=None):
  """Affine quantization of Jacob et al., by hand, in float64."""
  x = np.asarray(x, np.float64)
  low = min(x.min() if low is None else low, 0)
  high = max(x.max() if high is None else high, 0)
  scale = (high - low) / (2**n - 1)
  zero = np.rint(-low / scale)
  return (np.clip(np.rint(x / scale + zero), 0, 2**n - 1) - zero) * scale


def test_only_weights_are_quantized_and_per_channel(net):
  _, variables, _ = net
  params = variables['params']
  got = precision().quantize_weights(params, bits(2, 32))
  for layer in ('Conv_0', 'ConvTranspose_0', 'Dense_0'):
    np.testing.assert_array_equal(got[layer]['bias'], params[layer]['bias'])
    kernel = np.asarray(got[layer]['kernel'])
    for channel in range(kernel.shape[-1]):
      assert len(np.unique(kernel[..., channel])) <= 3  # −s, 0, s
      assert (
        np.abs(kernel[..., channel]).max()
        == np.abs(params[layer]['kernel'][..., channel]).max()
      )
  np.testing.assert_array_equal(
    got['GroupNorm_0']['scale'], params['GroupNorm_0']['scale']
  )


def test_the_input_of_every_layer_is_quantized_by_hand(net):
  module, variables, x = net
  p = precision(ranges='dynamic', input_bits=1)
  got, ranges = p.apply(module, variables, {}, bits(32, 4), x)
  v = variables['params']
  y = nn.Conv(8, (3, 3), feature_group_count=2).apply(
    {'params': v['Conv_0']}, jnp.asarray(fake(x, 4), jnp.float32)
  )
  y = nn.relu(nn.GroupNorm(4).apply({'params': v['GroupNorm_0']}, y))
  y = nn.ConvTranspose(4, (3, 3), (2, 2)).apply(
    {'params': v['ConvTranspose_0']}, jnp.asarray(fake(y, 4), jnp.float32)
  )
  y = y.mean((1, 2))
  y = nn.Dense(3).apply(
    {'params': v['Dense_0']}, jnp.asarray(fake(y, 4), jnp.float32)
  )
  np.testing.assert_allclose(got, y, atol=1e-5)
  assert set(ranges) == {'Conv_0', 'ConvTranspose_0', 'Dense_0'}
  np.testing.assert_allclose(ranges['Conv_0'], [x.min(), x.max()])


def test_the_networks_own_input_keeps_more_bits():
  x = jnp.linspace(-1, 1, 200)[:, None]
  module = nn.Dense(1, kernel_init=nn.initializers.ones)
  variables = module.init(KEY, x)
  for n, least, levels in ((2, 8, 200), (2, 1, 4), (8, 1, 200)):
    p = precision(ranges='dynamic', input_bits=least)
    y, _ = p.apply(module, variables, {}, bits(32, n), x)
    assert len(np.unique(y)) <= levels
    assert len(np.unique(y)) > levels / 3


def test_an_input_by_keyword_is_caught_too():
  class Keyword(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(1, kernel_init=nn.initializers.ones)(inputs=x)

  x = jnp.linspace(-1, 1, 200)[:, None]
  variables = Keyword().init(KEY, x)
  p = precision(ranges='dynamic', input_bits=1)
  y, _ = p.apply(Keyword(), variables, {}, bits(32, 2), x)
  assert len(np.unique(y)) == 4


def test_moving_ranges_follow_the_formula_and_freeze(net):
  module, variables, x = net
  p = precision()
  _, first = p.apply(module, variables, {}, bits(32, 8), x)
  out, second = p.apply(
    module, variables, first, bits(32, 8), 3 * x, update=True
  )
  expected = 0.9 * np.array([x.min(), x.max()]) + 0.1 * 3 * np.array(
    [x.min(), x.max()]
  )
  np.testing.assert_allclose(second['Conv_0'], expected, rtol=1e-5)
  frozen, third = p.apply(module, variables, second, bits(32, 8), 3 * x)
  np.testing.assert_array_equal(third['Conv_0'], second['Conv_0'])
  np.testing.assert_allclose(frozen, out, rtol=1e-5)


def test_dynamic_ranges_are_those_of_the_batch(net):
  module, variables, x = net
  p = precision(ranges='dynamic')
  _, ranges = p.apply(module, variables, {}, bits(32, 8), x)
  _, ranges = p.apply(module, variables, ranges, bits(32, 8), 3 * x)
  np.testing.assert_allclose(ranges['Conv_0'], [3 * x.min(), 3 * x.max()])


def test_ranges_are_reduced_over_the_mapped_axis(net):
  module, variables, x = net

  def ranges(x):
    return precision().apply(
      module, variables, {}, bits(32, 8), x, replicas=Replicas('devices')
    )[1]

  got = jax.vmap(ranges, axis_name='devices')(x[:, None])
  _, whole = precision().apply(module, variables, {}, bits(32, 8), x)
  for shard in got['Conv_0']:
    np.testing.assert_array_equal(shard, whole['Conv_0'])


def test_32_bits_change_nothing(net):
  module, variables, x = net
  p, n = precision(), bits(32, 32)
  weights = p.quantize_weights(variables['params'], n)
  for a, b in zip(
    jax.tree.leaves(weights), jax.tree.leaves(variables['params']), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  out, _ = p.apply(module, variables, {}, n, x)
  np.testing.assert_array_equal(out, module.apply(variables, x))
  unquantized = Precision()
  assert unquantized.quantize_weights(weights, n) is weights
  assert unquantized.apply(module, variables, {}, n, x)[1] == {}


def test_gradients_reach_the_master_weights_straight_through(net):
  module, variables, x = net

  def loss(params, p):
    weights = p.quantize_weights(params, bits(4, 32))
    return jnp.sum(jnp.sin(module.apply({'params': weights}, x)))

  got = jax.grad(loss)(variables['params'], precision())
  # Straight through: the gradient of the loss at the quantized weights.
  rounded = precision().quantize_weights(variables['params'], bits(4, 32))
  expected = jax.grad(loss)(rounded, Precision())
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gradient_penalty_through_a_quantized_convolutional_d():
  """∂/∂k of ½‖∂D/∂x‖² where D(x) = Σ v · (x ∗ Q(k)): linear, so analytic."""
  x = jax.random.normal(KEY, (1, 6, 6, 1))
  module = nn.Conv(3, (3, 3), use_bias=False)
  variables = module.init(KEY, x)
  v = jax.random.normal(jax.random.PRNGKey(1), (1, 6, 6, 3))
  p, n = precision(ranges='dynamic'), bits(4, 8)

  def penalty(params):
    def d(x):
      weights = p.quantize_weights(params, n)
      return jnp.vdot(v, p.apply(module, {'params': weights}, {}, n, x)[0])

    return 0.5 * jnp.sum(jnp.square(jax.grad(d)(x)))

  def by_hand(kernel):  # ∂D/∂x = convᵀ(v, k) is linear in k; no quantizer.
    gradient = jax.vjp(
      lambda x: module.apply({'params': {'kernel': kernel}}, x), x
    )
    return 0.5 * jnp.sum(jnp.square(gradient[1](v)[0]))

  rounded = p.quantize_weights(variables['params'], n)['kernel']
  got = jax.grad(penalty)(variables['params'])['kernel']
  np.testing.assert_allclose(
    got, jax.grad(by_hand)(rounded), rtol=1e-4, atol=1e-4
  )


def test_one_trace_serves_every_width(net):
  module, variables, x = net
  p = precision()
  traces = []

  @jax.jit
  def run(n):
    traces.append(n)
    weights = p.quantize_weights(variables['params'], n)
    return p.apply(module, {'params': weights}, {}, n, x)[0]

  outputs = [run(bits(w, a)) for w, a in ((8, 8), (4, 8), (2, 2), (32, 32))]
  assert len(traces) == 1
  assert len({float(y.sum()) for y in outputs}) == 4


def test_every_quantizer_by_name(net):
  _, variables, _ = net
  for name in quantizers.WEIGHTS:
    p = precision(weights=name)
    n = bits(-4 if name == 'grid' else 4, 8)
    params = {'Dense_0': variables['params']['Dense_0']}
    kernel = jax.jit(p.quantize_weights)(params, n)['Dense_0']['kernel']
    assert np.abs(kernel - params['Dense_0']['kernel']).max() > 0


def test_a_module_is_given_the_arguments_that_it_has():
  class Plain(nn.Module):
    def __call__(self, x):
      return x

    def draw(self, x, y, *, labels):
      return x

  class Trained(nn.Module):
    def __call__(self, x, train=False):
      return x

  class Open(nn.Module):
    def __call__(self, *inputs, **others):
      return inputs

  offered = {'train': True, 'labels': 1, 'mutable': ['batch_stats'], 'rngs': {}}
  applied = {'mutable': ['batch_stats'], 'rngs': {}}
  given = (1, None, None)

  def of(module, **more):
    return arguments_for(module, given, offered | more)

  assert of(Net()) == ((1,), applied | {'train': True})
  assert of(Plain()) == ((1,), applied)
  assert of(Trained()) == ((1,), applied | {'train': True})
  assert of(Plain(), method='draw') == (
    (1, None), applied | {'labels': 1, 'method': 'draw'}
  )  # fmt: skip
  assert of(Open()) == (given, offered)
  # `Sequential` hands them to its first layer.
  for layers, known in (((Net(), nn.Dense(2)), {'train': True}),
                        ((nn.Dense(2), Net()), {}),
                        ((nn.Sequential([Net()]),), {'train': True}),
                        ((nn.relu,), {})):  # fmt: skip
    assert of(nn.Sequential(layers)) == ((1,), applied | known)
  # What is not None is not left out: the module itself says that it is wrong.
  assert arguments_for(Plain(), (1, 2), {}) == ((1, 2), {})
  assert arguments_for(Trained(), (1, None), {}) == ((1,), {'train': False})
  assert arguments_for(Net(), (1,), {}) == ((1,), {'train': False})


def test_a_module_without_train_runs_quantized(net):
  _, variables, x = net
  run, dense = precision(), {'params': variables['params']['Dense_0']}
  ranges, _ = run.init(nn.Dense(3), dense, bits(4, 4), x, train=True)
  output, _ = run.apply(
    nn.Dense(3), dense, ranges, bits(4, 4), x, None, train=True
  )
  assert output.shape == (2, 6, 6, 3)
