import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, make_precision, QuantizerSpec
from qgan_jax.precision.layers import find_layers
from qgan_jax.precision.rules import (
  Defaults,
  parse_rules,
  resolve_rules,
)
from qgan_jax.precision.table import format_table

KEY = jax.random.PRNGKey(0)
UNIFORM, AFFINE = QuantizerSpec('uniform', -1), QuantizerSpec('affine')


class Block(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Conv(4, (3, 3), feature_group_count=2, name='conv')(x)


class Net(nn.Module):
  """Nested, grouped, transposed, spectrally normalized: a user's own."""

  @nn.compact
  def __call__(self, x, train=False):
    x = Block(name='block1')(x)
    x = nn.GroupNorm(2)(nn.relu(x))
    x = nn.ConvTranspose(6, (3, 3), transpose_kernel=True, name='up')(x)
    x = nn.SpectralNorm(nn.Dense(5, name='dense'))(x, update_stats=train)
    return nn.Dense(1, name='logit')(x)


X = jax.random.normal(KEY, (2, 4, 4, 4))


@pytest.fixture(scope='module')
def layers():
  return find_layers(Net(), jax.ShapeDtypeStruct(X.shape, X.dtype))


def resolve(layers, text='', bits=4, ranges='moving', **kwargs):
  precision = make_precision(
    weights='uniform',
    activations='affine',
    per_channel=True,
    ranges=ranges,
    momentum=0.9,
    input_bits=8,
  )
  defaults = Defaults(precision, Bits(bits, bits), **kwargs)
  precisions, found, table = resolve_rules(
    {'discriminator': layers},
    {'discriminator': defaults},
    parse_rules(text, ('generator', 'discriminator')),
  )
  return precisions['discriminator'], found['discriminator'], table


def test_layers_are_found_in_order_with_their_shapes(layers):
  assert [layer.path for layer in layers] == [
    'block1/conv', 'up', 'dense', 'logit'
  ]  # fmt: skip
  assert [layer.kernel for layer in layers] == [
    (3, 3, 2, 4), (3, 3, 6, 4), (6, 5), (5, 1)
  ]  # fmt: skip
  assert [layer.channel_axis for layer in layers] == [-1, -2, -1, -1]
  assert layers[1].inputs == (4, 4, 4)
  assert layers[1].outputs == (4, 4, 6)


class Attending(nn.Module):
  @nn.compact
  def __call__(self, x):
    codes = self.param('codes', nn.initializers.normal(), (4, 6))
    nn.Embed(3, 6, name='embed')(jnp.zeros(2, int))
    x = nn.MultiHeadDotProductAttention(2, name='attend')(x @ codes, x @ codes)
    return nn.Dense(1, name='logit')(x)


def test_attention_has_channels_on_two_axes_and_the_rest_is_named():
  x = jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)
  layers = {layer.path: layer for layer in find_layers(Attending(), x)}
  assert {path: layer.channel_axis for path, layer in layers.items()} == {
    'attend/query': (-2, -1), 'attend/key': (-2, -1), 'attend/value': (-2, -1),
    'attend/out': -1, 'logit': -1, 'codes': -1, 'embed/embedding': -1,
  }  # fmt: skip
  assert layers['attend/query'].kernel == (6, 2, 3)
  unknown = [path for path, layer in layers.items() if not layer.known]
  assert unknown == ['codes', 'embed/embedding']
  found = tuple(layers.values())

  precision, bits, table = resolve(found)
  assert bits == Bits(4, 4)
  assert {(c.layer, c.quantizer) for c in table if c.layer in unknown} == {
    ('codes', ''), ('embed/embedding', '')
  }  # fmt: skip
  named = [e[1] for e in precision.exceptions]
  assert named == ['attend/query', 'attend/key', 'attend/value']
  keys = [('codes',), ('embed', 'embedding'), ('attend', 'query', 'bias')]
  w = jax.ShapeDtypeStruct((4, 6), jnp.float32)
  assert [precision.weight_path(k, w) for k in keys] == [None, None, None]

  # By its name, whatever is before it; with the default's width or its own.
  for text, width in (('*/weights/codes: quantizer=uniform', 4),
                      ('*/*/*codes: bits=2', None),
                      ('*/weights/codes: bits=2', 2)):  # fmt: skip
    if width is None:
      with pytest.raises(UserError, match='catches nothing'):
        resolve(found, text)
      continue
    precision, bits, table = resolve(found, text)
    assert precision.weight_path(('codes',), w) == 'codes'
    assert precision.spec('weights', 'codes') == UNIFORM
    assert bits.weights['codes'] == width
    assert bits.weights['embed/embedding'] == 32
    params = {'codes': jax.random.normal(KEY, (64, 6))}
    widths = Bits({'codes': jnp.float32(width)}, jnp.float32(32))
    rounded = precision.quantize_weights(params, widths)['codes']
    for column in np.asarray(rounded).T:
      assert 1 < len(np.unique(column)) <= 2**width
  precision, _, _ = resolve(found, '*/weights/*/embedding: bits=8')
  assert precision.weight_path(('embed', 'embedding'), w) == 'embed/embedding'


def test_without_rules_all_layers_share_one_width(layers):
  precision, bits, table = resolve(layers)
  assert bits == Bits(4, 4)
  assert precision.weights == UNIFORM
  assert precision.activations == AFFINE
  # Flax keeps the transposed kernel's output channels one before the last.
  assert precision.exceptions == (
    ('weights', 'up', QuantizerSpec('uniform', -2)),
  )
  assert {(c.layer, c.bits) for c in table if c.role == 'activations'} == {
    ('block1/conv', 8), ('up', 4), ('dense', 4), ('logit', 4)
  }  # fmt: skip


def test_32_bits_are_no_quantizer_at_all(layers):
  precision, _, _ = resolve(layers, bits=32)
  assert precision.weights is None
  assert precision.activations is None
  assert precision.exceptions == ()
  precision, bits, _ = resolve(layers, 'disc*/*/logit: bits=32')
  assert precision.spec('weights', 'logit') is None
  assert precision.spec('activations', 'logit') is None
  assert precision.spec('weights', 'dense') == UNIFORM
  assert bits.weights == {'block1/conv': 4, 'up': 4, 'dense': 4, 'logit': 32}


def test_the_last_rule_wins_key_by_key(layers):
  precision, bits, table = resolve(
    layers,
    '*/weights/*: bits=2 quantizer=affine; '
    '*/weights/block1/*: bits=6 per_channel=false; */*/logit: bits=8',
  )
  assert bits.weights == {'block1/conv': 6, 'up': 2, 'dense': 2, 'logit': 8}
  assert bits.activations == {
    'block1/conv': 8, 'up': 4, 'dense': 4, 'logit': 8
  }  # fmt: skip
  assert precision.spec('weights', 'block1/conv') == QuantizerSpec('affine')
  assert precision.spec('weights', 'up') == QuantizerSpec('affine', -2)
  assert precision.spec('weights', 'logit') == QuantizerSpec('affine', -1)
  assert precision.gradients is None
  text = format_table(table)
  assert len(text.splitlines()) == 1 + 2 * 4
  assert 'bits=6 per_channel=false' in text


def test_per_channel_is_said_of_those_that_have_it(layers):
  precision, _, table = resolve(
    layers,
    '*/weights/*: quantizer=codebook; */weights/up: quantizer=grid bits=-6; '
    '*/weights/dense: quantizer=mxfp4 per_channel=false; '
    '*/weights/logit: quantizer=lsq',
  )
  said = {c.quantizer: c.per_channel for c in table if c.role == 'weights'}
  assert said == {'codebook': False, 'grid': False, 'mxfp4': True, 'lsq': True}
  assert 'codebook per channel' not in format_table(table)
  # Fewer than 32 inputs are one block: a scale of 2^(⌊log2 max|x|⌋ − 2) for
  # each output channel, on whose grid of E2M1 are 0, ½, 1, 1½, 2, 3, 4 and 6.
  w = np.random.default_rng(0).normal(size=(6, 5)) * 10.0 ** np.arange(5)
  scale = 2 ** (np.floor(np.log2(np.abs(w).max(0))) - 2)
  levels = np.float64([0, 0.5, 1, 1.5, 2, 3, 4, 6])
  nearest = np.abs(np.abs(w / scale)[..., None] - levels).argmin(-1)
  quantizer = precision.spec('weights', 'dense').quantizer
  x, n = jnp.float32(w), jnp.float32(4)
  found = quantizer.apply(x, quantizer.fit(x, n), n)
  np.testing.assert_allclose(found, np.sign(w) * levels[nearest] * scale)


def test_learned_ranges_are_those_inside_the_network(layers):
  _, _, table = resolve(layers, '*/activations/*: quantizer=lsq')
  assert [c.ranges for c in table if c.role == 'activations'] == [
    'first batch', 'learned', 'learned', 'learned'
  ]  # fmt: skip


def test_gradients_only_where_a_rule_says_so(layers):
  precision, bits, _ = resolve(layers, '*/gradients/up: bits=8')
  assert precision.spec('gradients', 'up') is not None
  assert precision.spec('gradients', 'logit') is None
  assert bits.gradients['up'] == 8


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('*/weights/upp: bits=2', 'catches nothing.*block1/conv, up, dense, logit'),
    ('generator/weights/up: bits=2', 'catches nothing'),
    ('disc/weights/up: bits=2', "no network is 'disc'.*discriminator"),
    ('*/weight/up: bits=2', "did you mean 'weights'"),
    ('*/weights/up: bit=2', "no 'bit', did you mean 'bits'"),
    ('*/weights/up: bits=17', 'from 1 to 16'),
    ('*/weights/up: bits=1.5', 'from 1 to 16'),
    ('*/weights/up: bits=x', "bits takes .*not 'x'"),
    ('*/weights/up: quantizer=unifrm', "did you mean 'uniform'"),
    ('*/activations/up: quantizer=grid', "no quantizer 'grid'"),
    ('*/weights/up: quantizer=grid', "up: quantizer=grid': .* needs bits=b"),
    ('*/activations/up: ranges=fixed', 'one of moving, dynamic, mse, fitted'),
    (
      '*/activations/*: quantizer=pact; */activations/up: ranges=mse',
      "activations/up: ranges=mse': .*have pact.* say quantizer=affine",
    ),
    ('*/weights/up: per_channel=1', 'true or false'),
    ('weights/up: bits=2', 'is not NETWORK/ROLE/PATH'),
    ('*/weights/up', 'is not NETWORK/ROLE/PATH'),
  ],
)
def test_wrong_rules_are_one_clear_line(layers, text, message):
  with pytest.raises(UserError, match=message):
    resolve(layers, text)


def test_what_the_rules_say_is_what_happens(layers):
  """Levels counted in the tensors themselves, every kind of layer."""
  precision, bits, _ = resolve(
    layers,
    '*/weights/*: quantizer=affine; */weights/block1/*: bits=1; '
    '*/weights/up: bits=2; */weights/dense: bits=3; */weights/logit: bits=32',
  )
  bits = jax.tree.map(jnp.float32, bits)
  variables = Net().init(KEY, X)
  params = variables['params']
  got = precision.quantize_weights(params, bits)
  for layer, axis, levels in (('up', 2, 4), ('dense', 1, 8)):
    kernel = np.moveaxis(np.asarray(got[layer]['kernel']), axis, 0)
    counts = [len(np.unique(channel)) for channel in kernel]
    assert levels // 2 < max(counts) <= levels
  kernel = got['block1']['conv']['kernel']
  for channel in np.moveaxis(np.asarray(kernel), -1, 0):
    assert len(np.unique(channel)) == 2
  assert got['logit'] is not None
  np.testing.assert_array_equal(
    got['logit']['kernel'], params['logit']['kernel']
  )
  out, ranges = precision.apply(
    Net(), variables, {}, bits, X, mutable=['batch_stats']
  )
  assert set(ranges) == {'block1/conv', 'up', 'dense', 'logit'}
  assert np.isfinite(out[0]).all()


def test_one_layer_remembers_ranges_where_the_others_do_not(layers):
  def end(text, first):
    precision, bits, _ = resolve(layers, text, ranges='dynamic')
    bits = jax.tree.map(jnp.float32, bits)
    variables, ranges = Net().init(KEY, X), {}
    for x in (first, X):
      _, ranges = precision.apply(
        Net(), variables, ranges, bits, x, update=True, mutable=['batch_stats']
      )
    return ranges['block1/conv']

  rule = '*/activations/block1/conv: ranges=moving'
  np.testing.assert_array_equal(end('', X), end('', 9 * X))
  assert end(rule, 9 * X)[1] > 1.5 * end(rule, X)[1]


def test_one_trace_serves_every_mixture(layers):
  precision, bits, _ = resolve(layers, '*/weights/up: bits=2')
  bits = jax.tree.map(jnp.float32, bits)
  params = Net().init(KEY, X)['params']
  traces = []

  @jax.jit
  def run(bits):
    traces.append(1)
    return precision.quantize_weights(params, bits)['up']['kernel'].sum()

  sums = {float(run(bits._replace(weights=bits.weights | {'up': n})))
          for n in map(jnp.float32, (1, 2, 5, 32))}  # fmt: skip
  assert len(sums) == 4
  assert len(traces) == 1
