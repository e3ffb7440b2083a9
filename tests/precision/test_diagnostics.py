import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.precision import Bits, diagnostics, Precision, QuantizerSpec

KEY = jax.random.PRNGKey(0)
X = jax.random.normal(KEY, (8, 5))


def look(precision, bits, x=X, scale=1.0, ranges=None):
  module = nn.Dense(6)
  variables = jax.tree.map(lambda w: scale * w, module.init(KEY, x))
  if ranges is None:
    ranges, learned = precision.init(module, variables, bits, x)
  else:
    learned = {}
  seen = jax.jit(
    lambda v: diagnostics.observe(
      precision, module, v, ranges, bits, learned, x
    )
  )(variables)
  return variables['params']['kernel'], jax.device_get(seen)


def test_numbers_of_the_weights_by_hand():
  w, seen = look(Precision(QuantizerSpec('uniform')), Bits(3.0, 32.0))
  summary = diagnostics.summarize(seen)
  assert summary.keys() == {'/weights'}
  numbers = summary['/weights']
  x = np.asarray(w, np.float64)
  step = np.abs(x).max() / 3
  codes = np.rint(x / step)
  noise = np.sum((x - step * codes) ** 2)
  assert numbers['bits'] == 3
  np.testing.assert_allclose(
    numbers['sqnr_db'], 10 * np.log10(np.sum(x**2) / noise), rtol=1e-4
  )
  _, counts = np.unique(codes, return_counts=True)
  share = counts / x.size
  np.testing.assert_allclose(
    numbers['entropy'], -np.sum(share * np.log2(share)), rtol=1e-6
  )
  assert numbers['used'] == len(counts) / 8
  assert numbers['dead'] == 8 - len(counts)
  assert numbers['clipped'] == 0


def test_clipped_are_those_outside_of_the_range():
  precision = Precision(None, QuantizerSpec('affine'), input_bits=1)
  ranges = {'': jnp.float32([-0.5, 1.0])}
  _, seen = look(precision, Bits(32.0, 4.0), ranges=ranges)
  numbers = diagnostics.summarize(seen)['/activations']
  step = 1.5 / 15
  # Zero is a level, and so the range begins at −5 steps; half a step around.
  outside = (-5.5 * step > X) | (10.5 * step < X)
  np.testing.assert_allclose(numbers['clipped'], np.mean(outside), atol=1e-6)
  assert 0.2 < numbers['clipped'] < 0.6


def test_fixed_widths_and_learned_quantizers_are_seen():
  precision = Precision(QuantizerSpec('ternary'), QuantizerSpec('lsq'))
  _, seen = look(precision, Bits(8.0, 8.0))
  summary = diagnostics.summarize(seen)
  assert summary['/weights']['bits'] == 2
  assert summary['/weights']['used'] == 0.75
  assert summary['/activations']['sqnr_db'] > 20


def test_a_grid_has_no_number_of_levels():
  w, seen = look(Precision(QuantizerSpec('grid')), Bits(-2.0, 32.0))
  numbers = diagnostics.summarize(seen)['/weights']
  assert numbers.keys() == {'bits', 'sqnr_db', 'clipped', 'entropy'}
  _, counts = np.unique(np.rint(np.asarray(w) * 4), return_counts=True)
  share = counts / w.size
  np.testing.assert_allclose(
    numbers['entropy'], -np.sum(share * np.log2(share)), rtol=1e-6
  )


def test_float_and_pruned_tensors():
  assert diagnostics.summarize(look(Precision(), Bits(32.0, 32.0))[1]) == {}
  precision = Precision(QuantizerSpec('uniform'))
  assert diagnostics.summarize(look(precision, Bits(32.0, 32.0))[1]) == {}
  bits = Bits(8.0, 32.0, sparsity=jnp.float32(0.5))
  _, seen = look(precision, bits)
  assert np.sum(seen['weights']['']['codes'] == 0) >= 15


def test_flips_are_counted():
  precision = Precision(QuantizerSpec('uniform'))
  _, a = look(precision, Bits(2.0, 32.0))
  _, b = look(precision, Bits(2.0, 32.0), scale=-1.0)
  codes = a['weights']['']['codes']
  rates = diagnostics.flip_rates(a, b)
  np.testing.assert_allclose(rates['/weights'], np.mean(codes != 0))
  assert diagnostics.flip_rates(a, a)['/weights'] == 0


def test_cosines_by_layer():
  a = {'up': {'kernel': np.eye(3), 'bias': np.ones(3)}}
  b = {'up': {'kernel': np.ones((3, 3)), 'bias': np.ones(3)}}
  found = diagnostics.cosines(a, b)
  assert found.keys() == {'up/weights'}
  np.testing.assert_allclose(found['up/weights'], 1 / np.sqrt(3))
  zero = {'up': {'kernel': np.zeros((3, 3))}}
  assert np.isnan(diagnostics.cosines(zero, zero)['up/weights'])
