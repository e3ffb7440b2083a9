import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from qgan_jax.artifacts import container

arrays = st.one_of(
  st.binary(max_size=200).map(lambda b: np.frombuffer(b, np.uint8)),
  st.lists(st.integers(0, 3), max_size=3).map(
    lambda shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  ),
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), arrays, max_size=4))
def test_what_is_joined_is_split_again(tensors):
  header = {'model': 'dcgan', 'bits': [4, 8]}
  found, parts = container.split(container.join(header, tensors))
  assert found == header
  assert parts.keys() == tensors.keys()
  for name, x in tensors.items():
    assert parts[name].dtype == x.dtype
    np.testing.assert_array_equal(parts[name], x)


def test_codes_take_what_their_entropy_is():
  rng = np.random.default_rng(0)
  codes = rng.binomial(14, 0.5, 100_000).astype(np.uint8)
  counts = np.bincount(codes)
  share = counts[counts > 0] / codes.size
  entropy = -(share * np.log2(share)).sum() / 8
  size = container.join({}, {'codes': codes}).size
  assert entropy * codes.size < size < 1.03 * entropy * codes.size + 100
  # And no more than they are where nothing can be gained.
  noise = rng.integers(0, 256, 100_000, np.uint8)
  assert container.join({}, {'codes': noise}).size < noise.size + 200


def test_a_small_file_cannot_become_a_large_one(monkeypatch):
  monkeypatch.setattr(
    container, '_huffman', lambda content: zlib.compress(content, 9)[2:-4]
  )
  bomb = container.join({}, {'codes': np.zeros(10_000_000, np.uint8)})
  assert bomb.size < 20_000
  with pytest.raises(ValueError, match='10000000 bytes in'):
    container.split(bomb)
  header = {'metadata': 'x' * 2**21}
  with pytest.raises(ValueError, match='at most 1048576 are read'):
    container.join(header, {})
  with monkeypatch.context() as patched:
    patched.setattr(container, '_MAX_HEADER', 2**22)
    bomb = container.join(header, {})
  assert bomb.size < 5_000
  with pytest.raises(ValueError, match='do not end where they should'):
    container.split(bomb)
