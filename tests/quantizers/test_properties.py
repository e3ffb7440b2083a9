"""What every quantizer of every name has to be, whatever its paper."""

import functools

import chex
import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import quantizers

NAMES = quantizers.NAMES
WIDTHS = np.array([1, 2, 3, 4, 8, 16], np.float32)
SIZE = 24
# Magnitudes from 1e-3 to 1e6, zeros and ties among them.
VALUES = st.one_of(
  st.floats(-1e6, 1e6, width=32), st.integers(-8, 8).map(lambda n: n / 8)
)
TENSORS = st_numpy.arrays(np.float32, SIZE, elements=VALUES)
few = hypothesis.settings(max_examples=15, deadline=None, derandomize=True)

# x̂ keeps to another range than x, so quantizing it again is another thing.
NOT_IDEMPOTENT = ('dorefa',)
SYMMETRIC = ('uniform', 'power_of_two_scale', 'grid', 'uniform_mse')
SYMMETRIC += ('stochastic', 'ewgs', 'ternary', 'logarithmic', 'apot')
SYMMETRIC += tuple(n for n in NAMES if n.startswith(('fp8', 'mx')))
# Rounded in another domain than that of x, or not to the nearest.
NOT_NEAREST = ('dorefa', 'dorefa_activation', 'logarithmic', 'ternary')


def widths(name):
  """`grid` takes the exponent of a step."""
  return -WIDTHS if name == 'grid' else WIDTHS


def levels(name, bits):
  return 2 ** (quantizers.by_name(name).fixed_bits or int(bits))


@functools.cache
def compiled(name):
  """x → all that is known of it, a row for each width, in one trace."""
  quantizer = quantizers.by_name(name)
  chex.clear_trace_counter()  # It counts by name, and all are called `run`.

  def one(bits, x):
    params = quantizer.fit(x, bits)
    y = quantizer.apply(x, params, bits)
    codes = quantizer.encode(x, params, bits)
    return {
      'params': params,
      'y': y,
      'codes': codes,
      'decoded': quantizer.decode(codes, params, bits),
      'again': quantizer.apply(y, params, bits),
      'negated': quantizer.apply(-x, quantizer.fit(-x, bits), bits),
    }

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(x):
    return jax.vmap(one, (0, None))(widths(name), x)

  return lambda x: jax.tree.map(np.asarray, run(jnp.asarray(x, jnp.float32)))


def scale_of(out, i):
  """The step of a uniform quantizer at the i-th width."""
  return float(out['params']['scale'][i])


@pytest.mark.parametrize('name', NAMES)
@few
@hypothesis.given(x=TENSORS)
def test_levels_codes_order_and_repetition(name, x):
  out = compiled(name)(x)
  order = np.argsort(x, kind='stable')
  # Only those of `grid` run out of int32.
  whole = (np.abs(out['codes']) < 2**31 - 128) | (name != 'grid')
  np.testing.assert_array_equal(out['decoded'][whole], out['y'][whole])
  assert out['codes'].dtype == np.int32
  largest = np.abs(x).max()
  for i, bits in enumerate(WIDTHS):
    y, codes = out['y'][i], out['codes'][i]
    assert np.isfinite(y).all()
    assert (np.diff(y[order]) >= 0).all(), 'not monotonic'
    assert (np.diff(codes[order]) >= 0).all(), 'codes not monotonic'
    if name != 'grid':
      assert len(np.unique(y)) <= levels(name, bits)
      assert int(codes.max()) - int(codes.min()) < levels(name, bits)
    if name not in NOT_IDEMPOTENT:
      # A real zero point may be far from 0, and cost as much precision.
      np.testing.assert_allclose(
        out['again'][i], y, rtol=1e-6, atol=4e-6 * largest
      )
    if name in SYMMETRIC and bits > 1:
      np.testing.assert_array_equal(out['negated'][i], -y)


# Of one bit and one that is learned, and of no level at 0.
NOT_ZERO = ('lsq', 'lsq_plus', 'seq', 'apot', 'dorefa', 'pixels')


@pytest.mark.parametrize('name', sorted({*NAMES} - {*NOT_ZERO}))
def test_zeros_stay_zeros_at_every_width(name):
  assert np.abs(compiled(name)(np.zeros(SIZE))['y']).max() < 1e-37


def test_a_gradient_of_zeros_gets_no_noise():
  quantizer = quantizers.by_name('dorefa_gradient')
  g, bits = jnp.zeros((64,)), jnp.float32(8)
  params = quantizer.fit(g, bits)
  assert not quantizer.apply(g, params, bits, jax.random.key(0)).any()


@pytest.mark.parametrize(
  'name',
  ['uniform', 'affine', 'power_of_two_scale', 'stochastic', 'ewgs', 'pact'],
)
@few
@hypothesis.given(x=TENSORS)
def test_within_half_a_step(name, x):
  out = compiled(name)(x)
  for i, bits in enumerate(WIDTHS):
    if name == 'pact':
      negative = x.min() < 0
      steps = max(2 ** (bits - 1) - 1, 1) if negative else 2**bits - 1
      step = float(out['params']['alpha'][i]) / steps
    else:
      step = scale_of(out, i)
    # Half a step, plus half for a zero point that is itself rounded.
    slack = 1.0 if name == 'affine' else 0.5
    error = np.abs(out['y'][i] - x).max()
    assert error <= step * slack * (1 + 1e-3) + 1e-6 * np.abs(x).max()


@pytest.mark.parametrize('name', [n for n in NAMES if n not in NOT_NEAREST])
@pytest.mark.parametrize('seed', [0, 1])
def test_no_other_level_is_nearer(name, seed):
  rng = np.random.RandomState(seed)
  x = (rng.randn if seed else rng.laplace)(*([SIZE] if seed else [0, 1, SIZE]))
  out = compiled(name)(x)
  for i, bits in enumerate(WIDTHS):
    if bits > 8:  # 24 values do not show that many.
      continue
    distance = np.abs(x[:, None] - np.unique(out['y'][i])[None])
    mine = np.abs(x - out['y'][i])
    assert (mine <= distance.min(1) * (1 + 1e-5) + 1e-6).all()


EDGES = {
  'zeros': np.zeros(SIZE),
  'constant': np.full(SIZE, 3.0),
  'negative': np.full(SIZE, -3.0),
  'huge': np.resize([3.4e38, -3.4e38, 1.0], SIZE),
  'largest': np.full(SIZE, np.finfo(np.float32).max),
  'tiny': np.resize([1.2e-38, -1.2e-38], SIZE),
  'denormal': np.resize([1e-45, 0.0, -1e-40], SIZE),
  'far apart': np.resize([1e-30, 1e30], SIZE),
}


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('edge', EDGES)
def test_finite_at_the_edges(name, edge):
  out = compiled(name)(EDGES[edge])
  for value in (out['y'], *out['params'].values()):
    assert np.isfinite(value).all()
  if name in ('uniform', 'ewgs', 'stochastic') and edge == 'huge':
    for y in out['y']:  # Finite, and not by giving up.
      assert y[0] > 0 > y[1]


@pytest.mark.parametrize('shape', [(0, 3), ()])
def test_empty_and_single(shape):
  x = jnp.full(shape, 2.5)

  @jax.jit
  def run(bits):
    outputs = {}
    for name in NAMES:
      quantizer = quantizers.by_name(name)
      params = quantizer.fit(x, bits)
      outputs[name] = quantizer.apply(x, params, bits), params
    return outputs

  for name, (y, params) in run(jnp.float32(3)).items():
    assert y.shape == shape, name
    for value in (y, *params.values()):
      assert np.isfinite(value).all(), name


@pytest.mark.parametrize('name', NAMES)
def test_one_bit_is_two_levels_and_not_zeros(name):
  x = np.random.RandomState(0).randn(SIZE)
  y = compiled(name)(x)['y'][0]
  if name != 'grid':
    width = quantizers.by_name(name).fixed_bits or 1
    assert 2 <= len(np.unique(y)) <= 2**width
  assert y.any()


@pytest.mark.parametrize('name', NAMES)
def test_one_by_one_equals_vmap_and_bfloat16_equals_float32(name):
  quantizer = quantizers.by_name(name)
  x = jnp.asarray(np.random.RandomState(0).randn(SIZE), jnp.bfloat16)
  chex.clear_trace_counter()

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(bits):
    wide = x.astype(jnp.float32)
    params = quantizer.fit(wide, bits)
    of_narrow = quantizer.fit(x, bits)
    return (
      quantizer.apply(wide, params, bits),
      quantizer.apply(x, of_narrow, bits),
    )

  together = compiled(name)(x)['y']
  for i, bits in enumerate(widths(name)):
    y, narrow = run(bits)
    np.testing.assert_allclose(together[i], y, rtol=1e-5, atol=1e-6)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, y.astype(jnp.bfloat16))


# One set of parameters for a tensor, by definition.
NO_CHANNELS = ('grid', 'codebook', 'dorefa_activation')
# Of a function that several names share, one is enough.
NO_CHANNELS += ('bwn', 'fp8_e5m2', 'mxfp8_e5m2', 'mxfp6_e2m3', 'mxfp6_e3m2')
NO_CHANNELS += ('mxint8',)


@pytest.mark.parametrize('name', [n for n in NAMES if n not in NO_CHANNELS])
def test_per_channel_is_per_tensor_on_each_channel(name):
  x = np.random.RandomState(0).randn(30, 5) * np.arange(1, 6)

  @functools.partial(jax.jit, static_argnums=0)
  def run(axis, x, bits):
    quantizer = quantizers.by_name(name, axis=axis)
    return quantizer.apply(x, quantizer.fit(x, bits), bits)

  x = jnp.asarray(x, jnp.float32)
  y = run(-1, x, 3.0)
  for i in range(5):
    one = run(None, x[:, i], 3.0)
    np.testing.assert_allclose(y[:, i], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', [n for n in NAMES if n not in NO_CHANNELS])
def test_several_axes_are_one_axis_of_all_their_indices(name):
  """As the heads and the features of attention's kernels are."""
  x = np.random.RandomState(0).randn(6, 2, 7, 3) * np.arange(1, 7).reshape(
    1, 2, 1, 3
  )

  @functools.partial(jax.jit, static_argnums=0)
  def run(axis, x, bits):
    quantizer = quantizers.by_name(name, axis=axis)
    params = quantizer.fit(x, bits)
    codes = quantizer.encode(x, params, bits)
    return quantizer.apply(x, params, bits), quantizer.decode(
      codes, params, bits
    )

  x = jnp.asarray(x, jnp.float32)
  merged = x.transpose(0, 2, 1, 3).reshape(6, 7, 6)
  expected, _ = run(-1, merged, 3.0)
  expected = expected.reshape(6, 7, 2, 3).transpose(0, 2, 1, 3)
  for got in run((1, -1), x, 3.0):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_an_axis_changes_nothing_for_those_per_tensor(name):
  x = jax.ShapeDtypeStruct((6, 4), jnp.float32)
  one, each = (
    jax.eval_shape(quantizers.by_name(name, axis=axis).fit, x, jnp.float32(4))
    for axis in (None, -1)
  )
  assert (one == each) == (name in quantizers.PER_TENSOR)


@pytest.mark.parametrize('name', NAMES)
def test_from_range_is_of_the_kind_that_fit_gives(name):
  quantizer = quantizers.by_name(name)
  if quantizer.from_range is None:
    return
  x = jax.ShapeDtypeStruct((4, 5), jnp.float32)
  end = jax.ShapeDtypeStruct((), jnp.float32)
  fitted = jax.eval_shape(quantizer.fit, x, end)
  ranged = jax.eval_shape(quantizer.from_range, end, end, end)
  assert fitted == ranged
  assert set(quantizer.learned) <= set(fitted)


def test_every_name_serves_something():
  served = {
    *quantizers.WEIGHTS,
    *quantizers.ACTIVATIONS,
    *quantizers.GRADIENTS,
  }
  assert served == set(NAMES)


def test_unknown_name():
  with pytest.raises(ValueError, match='unifrom'):
    quantizers.by_name('unifrom')
