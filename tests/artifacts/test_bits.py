from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from qgan_jax.artifacts import bits as packing


@settings(deadline=None)
@given(st.data(), st.integers(1, 16))
def test_pack_is_the_binary_number_of_its_definition(data, bits):
  codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
  packed = packing.pack(np.array(codes, np.int32), bits)
  number = sum(code << (i * bits) for i, code in enumerate(codes))
  size = -(-len(codes) * bits // 8)
  assert packed.tobytes() == number.to_bytes(size, 'little')
  unpacked = packing.unpack(packed, bits, (len(codes),))
  assert unpacked.dtype == np.int32
  assert unpacked.tolist() == codes


def test_unpack_gives_the_shape_back():
  codes = np.random.default_rng(0).integers(0, 8, (3, 5, 7))
  packed = packing.pack(codes, 3)
  np.testing.assert_array_equal(packing.unpack(packed, 3, (3, 5, 7)), codes)


@pytest.mark.parametrize(
  ('codes', 'bits'), [([4], 2), ([-1], 2), ([0], 0), ([0], 17)]
)
def test_pack_refuses_what_does_not_fit(codes, bits):
  with pytest.raises(ValueError, match='bits'):
    packing.pack(np.array(codes), bits)


@pytest.mark.parametrize('shape', [(7,), (17,), (10**30,)])
def test_unpack_refuses_another_number_of_bytes(shape):
  packed = packing.pack(np.zeros(12, int), 4)
  with pytest.raises(ValueError, match='bytes'):
    packing.unpack(packed, 4, shape)
