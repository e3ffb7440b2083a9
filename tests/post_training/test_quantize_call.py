"""`quantize`: networks of one's own, weights and activations, in one call."""

from flax import nnx
import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import post_training
from qgan_jax.post_training import quantize
from qgan_jax.post_training.watch import watch
from qgan_jax.precision import Quantized


class Mix(nn.Module):
  """A parameter of its own, and no layer that Linen has."""

  @nn.compact
  def __call__(self, x):
    codes = self.param('codes', nn.initializers.normal(0.3), (6, 6))
    return jnp.einsum('bni,io->bno', x, codes)


class G(nn.Module):
  """Attention, a grouped convolution, a turned one; no `train`."""

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(4 * 4 * 6, name='project')(z).reshape(-1, 16, 6)
    x = x + nn.MultiHeadDotProductAttention(2, name='attend')(x, x)
    x = Mix(name='mix')(x).reshape(-1, 4, 4, 6)
    x = nn.Conv(4, (3, 3), feature_group_count=2, name='grouped')(nn.relu(x))
    x = nn.ConvTranspose(
      2, (4, 4), (2, 2), transpose_kernel=True, use_bias=False, name='up'
    )(x)
    return nn.tanh(x)


class D(nn.Module):
  """Needs to be told `train`."""

  @nn.compact
  def __call__(self, images, train):
    x = nn.Conv(4, (3, 3), (2, 2), name='down')(images)
    x = nn.BatchNorm(use_running_average=not train)(x)
    return nn.Dense(1, name='logit')(nn.leaky_relu(x).reshape(len(x), -1))


LATENTS = np.random.default_rng(0).standard_normal((40, 5), np.float32)
GIVEN = {'project': (-1,), 'attend/query': (-2, -1), 'attend/key': (-2, -1),
         'attend/value': (-2, -1), 'attend/out': (-1,), 'grouped': (-1,),
         'up': (-2,)}  # fmt: skip


@pytest.fixture(scope='module')
def variables():
  g = jax.jit(G().init)(jax.random.key(0), LATENTS)
  images = jax.jit(G().apply)(g, LATENTS)
  d = jax.jit(lambda x: D().init(jax.random.key(1), x, False))(images)
  return g, d, images


@pytest.fixture(scope='module')
def pair(variables):
  g, d, _ = variables
  return quantize((G(), g), (D(), d), bit_width=4, calibrate=LATENTS)


def kernels(params, path):
  for key in path.split('/'):
    params = params[key]
  return np.float64(params['kernel'])


def test_weights_have_the_least_error_of_every_output_channel(variables, pair):
  params = variables[0]['params']
  rounded = pair[0].weights(params)
  for path, channels in GIVEN.items():
    w, got = kernels(params, path), kernels(rounded, path)
    others = tuple(i for i in range(w.ndim) if i - w.ndim not in channels)
    top = np.abs(w).max(others, keepdims=True)

    def error(scale, w=w, others=others):
      x = np.clip(np.rint(w / scale), -8, 7) * scale
      return ((x - w) ** 2).sum(others)

    best = np.min([error(top / 7 * r) for r in np.linspace(0.3, 1.1, 400)], 0)
    # Of the few values of one channel, the least of 400 tries is luck.
    assert ((got - w) ** 2).sum() <= 1.1 * best.sum(), path
    # Of no channel more than 16 values.
    moved = np.moveaxis(got, channels, range(len(channels)))
    for channel in moved.reshape(best.size, -1):
      assert len(np.unique(channel)) <= 16
  np.testing.assert_array_equal(rounded['mix']['codes'], params['mix']['codes'])
  np.testing.assert_array_equal(
    rounded['attend']['query']['bias'], params['attend']['query']['bias']
  )


def test_activations_have_the_ranges_of_the_calibration(variables, pair):
  g, d = pair
  assert set(g.ranges) == set(GIVEN)
  run = g.with_float_activations()
  weights = run.weights(run.variables['params'])
  seen = watch(lambda: run.run(weights, LATENTS))
  for path, ((x, _),) in seen.items():
    low, high = map(float, g.ranges[path])
    assert x.min() * 1.0001 - 1e-6 <= low <= 0 or path == 'grouped'
    assert 0 < high <= x.max() * 1.0001
  # What the discriminator sees is what the generator makes, within [−1, 1].
  images = np.asarray(variables[2])
  low, high = map(float, d.ranges['down'])
  assert images.min() - 1e-6 <= low < 0.5 * images.min()
  assert 0.5 * images.max() < high <= images.max() + 1e-6


def test_the_result_is_drawn_with_both_quantized(variables, pair):
  g, d = pair
  images = np.asarray(variables[2])
  drawn = np.asarray(g(LATENTS))
  weights_alone = np.asarray(g.with_float_activations()(LATENTS))
  error = np.sqrt(np.mean((drawn - images) ** 2)) / images.std()
  assert 0.02 < error < 0.5
  assert np.abs(drawn - weights_alone).max() > 1e-3
  logits = d(images)
  assert logits.shape == (40, 1) and np.isfinite(logits).all()
  # It is an argument of compiled functions.
  compiled = jax.jit(lambda network, z: network(z))(g, LATENTS)
  assert np.mean(np.abs(compiled - drawn) > 1e-5) < 0.02


def test_one_network_alone(variables):
  g = quantize((G(), variables[0]), bit_width=8, calibrate=(LATENTS,))
  assert isinstance(g, Quantized)
  images = np.asarray(variables[2])
  assert np.sqrt(np.mean((g(LATENTS) - images) ** 2)) < 0.05 * images.std()
  # FrozenDict, as older versions of Flax return it.
  frozen = flax.core.freeze(variables[0])
  same = quantize((G(), frozen), bit_width=8, calibrate=LATENTS)
  np.testing.assert_array_equal(same(LATENTS), g(LATENTS))


def test_other_inputs_of_the_discriminator(variables, pair):
  g, d, images = variables
  _, wide = quantize(
    (G(), g), (D(), d), bit_width=4, calibrate=LATENTS,
    discriminator_inputs=3 * images,
  )  # fmt: skip
  np.testing.assert_allclose(
    wide.ranges['down'], 3 * pair[1].ranges['down'], rtol=0.2
  )


def test_labels_go_to_both_networks():
  class Conditional(nn.Module):
    @nn.compact
    def __call__(self, x, labels, train=False):
      x = jnp.concatenate([x, jax.nn.one_hot(labels, 3)], -1)
      return nn.Dense(5, name='dense')(x)

  class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      return nn.Dense(2, name='dense')(x) + (100 if train else 0)

  labels = np.arange(40) % 3
  module = Conditional()
  own = jax.jit(module.init)(jax.random.key(0), LATENTS, labels)
  plain = jax.jit(Plain().init)(jax.random.key(0), LATENTS)
  pair = quantize(
    (module, own), (module, own), bit_width=8, calibrate=(LATENTS, labels)
  )
  for network in pair:
    assert [tuple(x) for x in network.inputs] == [
      ((5,), 'float32'), ((), 'int32')
    ]  # fmt: skip
    assert network(LATENTS, labels).shape == (40, 5)
  _, d = quantize((module, own), (Plain(), plain), calibrate=(LATENTS, labels))
  assert len(d.inputs) == 1
  assert abs(d(LATENTS)).max() < 50
  with pytest.raises(TypeError, match='Plain has no argument lables'):
    d(LATENTS, lables=labels)


def lines(network):
  return {
    tuple(line.split()[:2]): line.split()[2:]
    for line in network.table().splitlines()[1:]
  }


def test_the_table_names_every_layer_and_what_is_left_in_float(pair):
  table = lines(pair[0])
  for path in GIVEN:
    assert table[path, 'weights'][:2] == ['4', 'lsq']
    bits = '8' if path == 'project' else '4'
    assert table[path, 'activations'][:2] == [bits, 'affine']
  low, high = pair[0].ranges['up']
  assert table['up', 'activations'][2] == f'{float(low):.3g}'
  assert table['mix/codes', 'weights'] == ['32', 'float', '-', '6×6']
  assert 'gradients' not in pair[0].table()
  # Without inputs nobody knows of activations.
  alone = pair[1].replace(inputs=None)
  assert set(lines(alone)) == {('down', 'weights'), ('logit', 'weights')}


def test_a_rule_names_what_is_not_known(variables):
  g = quantize(
    (G(), variables[0]), bit_width=4, calibrate=LATENTS,
    rules='generator/weights/mix/codes: bits=2; */*/attend/*: bits=8;'
    'generator/activations/up: bits=32',
  )  # fmt: skip
  table = lines(g)
  assert table['mix/codes', 'weights'][:2] == ['2', 'lsq']
  assert table['attend/out', 'weights'][0] == '8'
  assert table['attend/out', 'activations'][0] == '8'
  assert table['up', 'activations'][:2] == ['32', 'float']
  assert table['grouped', 'weights'][0] == '4'
  params = variables[0]['params']
  rounded = g.weights(params)
  for column in np.asarray(rounded['mix']['codes']).T:
    assert len(np.unique(column)) <= 4
  assert np.any(rounded['mix']['codes'] != params['mix']['codes'])
  # Not by a pattern that is not its name.
  g = quantize((G(), variables[0]), rules='generator/weights/*: bits=2')
  assert lines(g)['mix/codes', 'weights'][:2] == ['32', 'float']
  with pytest.raises(ValueError, match='catches nothing.*mix/codes'):
    quantize((G(), variables[0]), rules='generator/weights/mix/*: bits=2')


def test_learned_activations_are_fitted_to_the_calibration(variables):
  g = quantize(
    (G(), variables[0]), calibrate=LATENTS, activation_quantizer='pact'
  )
  alphas = g.learned['activations']
  assert set(alphas) == set(GIVEN)
  run = g.in_float()
  seen = watch(lambda: run.run(variables[0]['params'], LATENTS))
  for path, ((x, _),) in seen.items():
    top = float(np.abs(x).max())
    assert 0.3 * top < float(alphas[path]['alpha']) < 1.3 * top


def test_what_it_gives_goes_on_through_the_other_steps(variables, pair):
  """Biases of attention have an axis for the heads, too."""
  g = quantize((G(), variables[0]), bit_width=3)
  corrected = post_training.correct_biases(g, LATENTS, batch_size=40)
  expected = watch(lambda: g.in_float()(LATENTS))

  def worst(network, path):
    run = network.with_float_activations()
    weights = run.weights(network.variables['params'])
    ((_, y),) = watch(lambda: run.run(weights, LATENTS))[path]
    ((_, wanted),) = expected[path]
    difference = np.asarray(y - wanted)
    return np.abs(difference.mean((0, 1))).max()

  assert worst(g, 'attend/query') > 1e-3
  assert worst(corrected, 'attend/query') < 1e-5


def test_in_float_nothing_changes(variables):
  g, d, images = variables
  own, other = quantize((G(), g), (D(), d), bit_width=32, calibrate=LATENTS)
  np.testing.assert_array_equal(own(LATENTS), G().apply(g, LATENTS))
  np.testing.assert_array_equal(
    other(images), D().apply(d, images, train=False)
  )


def test_bound_modules_stay_bound(variables):
  g, d, images = variables
  one, other = quantize(G().bind(g), D().bind(d), bit_width=4)
  assert one(LATENTS).shape == images.shape
  assert other(images, False).shape == (40, 1)
  calibrated = quantize(
    G().bind(g), D().bind(d), bit_width=4, calibrate=LATENTS
  )
  assert all(isinstance(network, Quantized) for network in calibrated)


class Listed(nn.Module):
  widths: list[int]

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.widths[0])(x)


def refused(variables):
  g, d, _ = variables
  good = (G(), g)

  class Net(nnx.Module):
    pass

  return [
    ((G(),), {}, 'the first network is a G without variables: give'),
    (((G(), None),), {}, 'the first network is a tuple: give'),
    ((good, 'D'), {}, 'the second network is a str: give'),
    ((good, good, 99), {}, 'bit_width=99: a whole number'),
    (((G(), g['params']),), {}, "variables of G have no 'params', only attend"),
    (((Net(), {}),), {}, 'the first network is an NNX module, and only Linen'),
    (((Listed([3]), g),), {}, 'Listed has an attribute that cannot be hashed'),
    (((G(), d),), {'calibrate': LATENTS}, r'G cannot be called with \[40, 5\]'),
    ((good,), {'calibrate': LATENTS[:, :3]}, r'G cannot be called with \[40'),
    ((good,), {'calibrate': (LATENTS, LATENTS)}, 'G cannot be called with'),
    ((good,), {'calibrate': 'latents'}, 'calibrate has a str in it: give an'),
    ((good,), {'calibrate': np.nan * LATENTS}, 'calibrate has values that are'),
    ((good,), {'calibrate': LATENTS[:0]}, 'calibrate has no values in it'),
    ((good,), {'calibrate': (LATENTS, LATENTS[:3])}, r'2 arrays of \[40, 3\]'),
    ((good,), {'calibrate': jax.ShapeDtypeStruct((4, 5), 'float32')},
     'calibrate has no values in it'),
    ((good,), {'calibrate': LATENTS, 'generator_inputs': LATENTS},
     'leave out generator_inputs'),
    ((good,), {'discriminator_inputs': LATENTS}, 'and no second network'),
    ((good,), {'activation_quantizer': 'seq'}, "_quantizer='seq': one of"),
    ((good,), {'quantizer': 'apot', 'bit_width': 16}, 'from 1 to 8'),
    ((good,), {'rules': 'generator/weights/dense'}, 'is not NETWORK/ROLE/PATH'),
    ((good,), {'rules': 'generator/activations/up: bits=8'}, 'catches nothing'),
  ]  # fmt: skip


def test_what_is_refused_in_one_sentence(variables):
  for args, kwargs, message in refused(variables):
    with pytest.raises(ValueError, match=message) as caught:
      quantize(*args, **kwargs)
    assert '\n' not in str(caught.value)


class Repeated(nn.Module):
  """Layers inside of transformations, which values cannot leave."""

  @nn.compact
  def __call__(self, x):
    class Step(nn.Module):
      @nn.compact
      def __call__(self, x, _):
        return nn.tanh(nn.Dense(5, name='inner')(x)), None

    x = nn.remat(nn.Dense)(5, name='kept')(x)
    scan = nn.scan(
      Step, variable_axes={'params': 0}, split_rngs={'params': True}, length=2
    )
    x, _ = scan(name='steps')(x, None)
    return nn.Dense(2, name='last')(x)


def test_activations_inside_of_transformations_are_refused():
  variables = Repeated().init(jax.random.key(0), LATENTS)
  with pytest.raises(ValueError, match=r'/kept cannot .*nn.remat.* bits=32'):
    quantize((Repeated(), variables), calibrate=LATENTS)
  rules = (f'*/activations/{name}: bits=32' for name in ('kept', 'steps/*'))
  network = quantize(
    (Repeated(), variables), calibrate=LATENTS, rules='; '.join(rules)
  )
  assert set(network.ranges) == {'last'}
  expected = Repeated().apply(variables, LATENTS)
  assert np.abs(network(LATENTS) - expected).max() < 0.05
  weights = network.weights(network.variables['params'])
  found = weights['steps']['inner']['kernel']
  given = variables['params']['steps']['inner']['kernel']
  assert 0 < np.abs(found - given).max() < 0.02


def test_a_generator_of_two_outputs_needs_the_discriminators_inputs():
  class Two(nn.Module):
    @nn.compact
    def __call__(self, z):
      return nn.Dense(2)(z), z

  v = Two().init(jax.random.key(0), LATENTS)
  with pytest.raises(ValueError, match='Two does not give one array: say what'):
    quantize((Two(), v), (Two(), v), calibrate=LATENTS)
