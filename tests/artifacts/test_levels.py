import tracemalloc

import numpy as np
import pytest

from qgan_jax import quantizers
from qgan_jax.artifacts.levels import (
  Codes,
  integer_codes,
  pairs_fit,
  Steps,
  steps_of,
)


@pytest.mark.parametrize('highest', [1, 7, 127])
def test_codes_are_found_up_to_float32(highest):
  rng = np.random.default_rng(0)
  codes = rng.integers(-highest, highest + 1, (40, 6))
  codes[:2] = [[highest], [1]]  # The step is the largest, and it shows.
  scales = rng.uniform(1e-3, 10, 6).astype(np.float32)
  found = integer_codes(codes.astype(np.float32) * scales, 127)
  np.testing.assert_array_equal(found.codes, codes)
  np.testing.assert_allclose(found.scales, scales, rtol=3e-7)


def test_codes_of_one_bit_of_ternary_and_of_powers_of_two():
  x = np.float32([[-0.3, 0.5, 1.0, 0.0], [0.3, 0.0, -0.25, 0.0]])
  found = integer_codes(x, 127)
  np.testing.assert_array_equal(found.codes, [[-1, 1, 4, 0], [1, 0, -1, 0]])
  np.testing.assert_array_equal(found.scales, np.float32([0.3, 0.5, 0.25, 1]))


def test_other_values_have_no_codes():
  rng = np.random.default_rng(0)
  assert integer_codes(rng.normal(size=(500, 2)).astype('f4'), 127) is None
  # Three centroids of a codebook.
  x = rng.choice(np.float32([-1, 0.271828, 0.3141592]), (50, 2))
  assert integer_codes(x, 127) is None
  # More levels than fit.
  assert integer_codes(np.arange(300, dtype=np.float32)[:, None], 127) is None


def test_many_levels_take_little_memory():
  rng = np.random.default_rng(0)
  codes = rng.integers(-(2**15), 2**15, (400, 1))
  codes[:2] = [[2**15], [1]]
  limit = 2**16 - 1
  tracemalloc.start()
  assert integer_codes(rng.normal(size=(400, 2)).astype('f4'), limit) is None
  found = integer_codes(codes.astype(np.float32), limit)
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  np.testing.assert_array_equal(found.codes, codes)
  assert most < 2**25


def test_pairs_fit_where_no_sum_of_two_products_saturates():
  """For every highest code of activations, and every two ends of weights."""
  for highest in (1, 127, 128, 129, 200, 254, 255):
    steps = Steps(1.0, 0, highest + 1)
    for least in range(-128, 1):
      for most in range(max(1, 125 + least), 128):  # Both wide and narrow.
        a = np.array([0, highest])[:, None, None, None]
        b = np.array([0, highest])[:, None, None]
        v = np.array([least, most])[:, None]
        w = np.array([least, most])
        pairs = a * v + b * w  # A bilinear function is largest at corners.
        exact = (pairs == np.clip(pairs, -(2**15), 2**15 - 1)).all()
        assert pairs_fit(steps, Codes(w, np.ones(1))) == exact


def rounding(scale, zero_point, levels, offset=0.0):
  def quantize(x):
    codes = np.clip(np.rint(x / np.float32(scale)) + zero_point, 0, levels - 1)
    return ((codes - zero_point) * np.float32(scale) + offset).astype('f4')

  return quantize


@pytest.mark.parametrize(
  'steps', [Steps(0.5, 0, 2), Steps(0.013, 0, 256), Steps(0.2, 127, 255),
            Steps(1.5, 3, 16), Steps(0.01, 255, 256)]
)  # fmt: skip
def test_steps_are_found(steps):
  found = steps_of(rounding(*steps), 1e3)
  assert found[1:] == steps[1:]
  assert found.scale == pytest.approx(steps.scale, rel=1e-6)
  assert found.highest == pytest.approx(
    float(rounding(*steps)(np.float32([1e3]))[0]), abs=1e-6
  )


@pytest.mark.parametrize('bits', [1, 2, 8])
def test_steps_without_a_level_at_0_are_moved(bits):
  """The bytes of images, and images of fewer grey levels."""
  grid = quantizers.pixels()

  def quantize(x):
    return np.asarray(grid.apply(x, {}, np.float32(bits)))

  found = steps_of(quantize, 1e3)
  assert found.levels == 2**bits
  codes = np.arange(2**bits)
  levels = found.scale * (codes - found.zero_point) + found.offset
  np.testing.assert_allclose(levels, np.linspace(-1, 1, 2**bits), atol=1e-6)
  # What lies halfway is rounded alike: x / scale to an even number.
  zero = found.zero_point + np.rint(-found.offset / found.scale)
  assert levels[int(zero)] == pytest.approx(float(quantize(np.zeros(1))[0]))
  assert found.highest == pytest.approx(1)


@pytest.mark.parametrize(
  ('quantize', 'message'),
  [
    (lambda x: x, 'in float'),
    (rounding(0.1, 0, 257), '8 bits'),
    (rounding(0.1, 4, 16, 0.05), 'nearest'),
    (lambda x: np.sign(x) * np.float32(2) ** np.rint(np.log2(
      np.clip(np.abs(x), 0.25, 4))), 'not equal'),
    (lambda x: np.floor(np.clip(x, 0, 7.9)), 'nearest'),
    (lambda x: np.rint(x / np.ptp(x) * 7) * np.ptp(x) / 7, 'from each batch'),
    (lambda x: 0 * x, 'one level'),
  ],
)  # fmt: skip
def test_other_kinds_of_steps_are_refused(quantize, message):
  with pytest.raises(ValueError, match=message):
    steps_of(lambda x: quantize(x).astype(np.float32), 1e3)
