"""PyTorch files of strangers; those of PyTorch itself are in test_inception."""

from collections import OrderedDict
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from qgan_jax.errors import UserError
from qgan_jax.metrics.torch_file import _LEGACY_MAGIC, read_state_dict

ARRAYS = {
  'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
  'a.count': np.array(7, np.int64),
  'b': np.float64([0.5, -1.5]),
  'c': np.float16([[1, 2], [3, 4]]),
  'empty': np.zeros((0, 3), np.float32),
}
STORAGES = {'f4': 'FloatStorage', 'f8': 'DoubleStorage', 'f2': 'HalfStorage',
            'i8': 'LongStorage'}  # fmt: skip


class Tensor:
  """Pickled as a PyTorch tensor is."""

  def __init__(self, key, kind, offset, shape, stride=None, size=1):
    if stride is None:
      stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    self.storage = Storage(kind, key, size)
    self.arguments = offset, shape, stride, False, OrderedDict()

  def __reduce__(self):
    return rebuild(), (self.storage, *self.arguments)


class Storage:
  def __init__(self, kind, key, size):
    self.kind, self.key, self.size = kind, key, size


def rebuild():
  return sys.modules['torch._utils']._rebuild_tensor_v2


class Pickler(pickle.Pickler):
  def persistent_id(self, obj):
    if isinstance(obj, Storage):
      kind = getattr(sys.modules['torch'], obj.kind)
      return 'storage', kind, obj.key, 'cpu', obj.size
    return None


@pytest.fixture(autouse=True)
def torch(monkeypatch):
  """Modules with the names that PyTorch's pickles mention."""
  module, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  for name in STORAGES.values():
    setattr(module, name, type(name, (), {'__module__': 'torch'}))

  def _rebuild_tensor_v2():
    raise AssertionError

  _rebuild_tensor_v2.__module__ = 'torch._utils'
  _rebuild_tensor_v2.__qualname__ = '_rebuild_tensor_v2'
  utils._rebuild_tensor_v2 = _rebuild_tensor_v2
  monkeypatch.setitem(sys.modules, 'torch', module)
  monkeypatch.setitem(sys.modules, 'torch._utils', utils)


def pickled(value, path, protocol=2):
  with open(path, 'wb') as file:
    Pickler(file, protocol).dump(value)
  return path.read_bytes()


class StateDict(OrderedDict):
  """With an attribute, as modules' tables have: an instruction BUILD."""

  def __reduce__(self):
    return OrderedDict, (), {'_metadata': OrderedDict({'': {'version': 1}})}, (
      None
    ), iter(self.items())  # fmt: skip


def state():
  return StateDict(
    (name, Tensor(str(i), STORAGES[x.dtype.str[1:]], 0, x.shape, size=x.size))
    for i, (name, x) in enumerate(ARRAYS.items())
  )


def write(path, value, zipped=True, compression=zipfile.ZIP_STORED, **extra):
  content = value if isinstance(value, bytes) else pickled(value, path)
  data = {str(i): x.tobytes() for i, x in enumerate(ARRAYS.values())} | extra
  if zipped:
    with zipfile.ZipFile(path, 'w', compression) as archive:
      archive.writestr('archive/data.pkl', content)
      for key, x in data.items():
        archive.writestr(f'archive/data/{key}', x)
    return path
  parts = [_LEGACY_MAGIC, 1001, {'little_endian': True}]
  sizes = [x.size for x in ARRAYS.values()]
  path.write_bytes(
    b''.join(pickle.dumps(part, 2) for part in parts)
    + content
    + pickle.dumps(list(data), 2)
    + b''.join(
      struct.pack('<q', size) + x
      for size, x in zip(sizes, data.values(), strict=True)
    )
  )
  return path


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('zipped', [True, False])
def test_what_is_written_is_read(tmp_path, zipped, protocol):
  path = tmp_path / 'x.pt'
  write(path, pickled(state(), path, protocol), zipped)
  arrays = read_state_dict(path)
  assert list(arrays) == list(ARRAYS)
  for name, x in arrays.items():
    np.testing.assert_array_equal(x, ARRAYS[name], strict=True)


def nested(depth):
  """A pickle of a table whose key is a tuple in a tuple in a tuple…."""
  return b'\x80\x02}' + b')' + b'\x85' * depth + b'K\x01s.'


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (nested(10), 'a key is no text'),
    (nested(1_000_000), 'a key is no text'),
    # 139 bytes once took 4 GiB: it is kept as number 2²⁸.
    (b'\x80\x02}r' + struct.pack('<I', 2**28) + b'.', ''),
    (b'\x80\x02X' + struct.pack('<I', 2**31) + b'x.', 'not a readable'),
    (b'\x80\x04\x8d' + struct.pack('<Q', 2**40) + b'x.', 'not a readable'),
    ({'x': Tensor('0', 'FloatStorage', -4, (4,))}, 'below 0'),
    ({'x': Tensor('0', 'FloatStorage', 0, (-1,), (1,))}, 'below 0'),
    ({'x': Tensor('0', 'FloatStorage', 0, (2.0, 3))}, 'below 0'),
    ({'x': Tensor('0', 'FloatStorage', 21, (4,))}, 'not a readable'),
    ({'x': Tensor('0', 'FloatStorage', 0, (2**40, 2**40))}, 'not a readable'),
    ({'x': Tensor('0', 'FloatStorage', 0, (2, 3), (1, 2))}, 'contiguous'),
    ({'x': Tensor('0', 'FloatStorage', 0, (1,) * 9)}, '9 axes'),
    ({f'{i}': Tensor('0', 'FloatStorage', 0, (24,)) for i in range(100)},
     'share|not a readable'),
    ({'x': 3}, 'not a readable'),
    ({3: Tensor('0', 'FloatStorage', 0, (4,))}, 'no text'),
    ([Tensor('0', 'FloatStorage', 0, (4,))], 'not a readable'),
    (b'\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R.', '__builtin__.eval'),
    (b'\x80\x02ccollections\nOrderedDict\nK\x01\x85R.', 'calls'),
    (b'\x80\x02(]o.', 'instruction OBJ'),
    (b'\x80\x02)R.', 'empty'),
    (b'\x80\x02}(K\x01', 'not a readable'),
    (b'', 'not a readable'),
    (b'.', 'not a readable'),
  ],
)  # fmt: skip
def test_what_is_crafted_is_one_sentence(tmp_path, value, message, zipped):
  path = tmp_path / 'x.pt'
  if not message:
    write(path, value, zipped=True)
    assert read_state_dict(path) == {}
    return
  write(path, value, zipped)
  with pytest.raises(UserError, match=message) as caught:
    read_state_dict(path)
  assert str(path) in str(caught.value)


def test_a_compressed_archive_is_refused(tmp_path):
  path = tmp_path / 'x.pt'
  write(path, state(), compression=zipfile.ZIP_DEFLATED, big=bytes(10**7))
  assert path.stat().st_size < 20_000
  with pytest.raises(UserError, match='more bytes than it has'):
    read_state_dict(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path):
  path = tmp_path / 'x.pt'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled(state(), tmp_path / 'p'))
    archive.writestr('archive/data/0', bytes(10_000))
    entry = archive.filelist[-1]
    archive.filelist += [entry] * 9
  with pytest.raises(UserError, match='more bytes than it has'):
    read_state_dict(path)


def test_a_storage_of_a_wrong_length_is_refused(tmp_path):
  path = write(tmp_path / 'x.pt', state(), zipped=False)
  content = path.read_bytes()
  start = content.index(struct.pack('<q', 24) + ARRAYS['a.weight'].tobytes())
  for count in (-1, 2**62, 23, 25):
    path.write_bytes(
      content[:start] + struct.pack('<q', count) + content[start + 8 :]
    )
    with pytest.raises(UserError, match='not a readable'):
      read_state_dict(path)
