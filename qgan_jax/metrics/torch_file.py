"""Reads the tensors of a PyTorch `state_dict` file without trusting it.

Such a file holds a pickle, which can run any code. Here an unpickler that knows
only a few harmless names reads it, so that a hostile file is refused. Both
containers are read: the zip of PyTorch ≥ 1.6, and the plain file before it.
"""

from collections import OrderedDict
import io
import math
import os
import pickle
import struct
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

from qgan_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
  'FloatStorage': '<f4',
  'DoubleStorage': '<f8',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
}


class _Storage(NamedTuple):
  dtype: str
  key: str
  size: int


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]


def _rebuild(storage, offset, shape, stride, *_):
  shape, stride = tuple(shape), tuple(stride)
  if stride != tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))):
    raise pickle.UnpicklingError('a tensor is not contiguous')
  return _Tensor(storage, offset, shape)


class _Unpickler(pickle.Unpickler):
  """Knows tensors, their storages and ordered dicts; refuses all else."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _rebuild
    if module == 'torch' and name in _DTYPES:
      return _DTYPES[name]
    raise pickle.UnpicklingError(f'it wants to use {module}.{name}')

  def persistent_load(self, pid: Any) -> _Storage:
    # ('storage', type, key, device, number of elements, …)
    return _Storage(pid[1], str(pid[2]), pid[4])


def _read_zip(path: str | os.PathLike) -> tuple[Any, dict[str, bytes]]:
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    pickles = [name for name in names if name.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise pickle.UnpicklingError('it is a zip file without one data.pkl')
    folder = pickles[0].removesuffix('data.pkl') + 'data/'
    tensors = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
    return tensors, {
      name.removeprefix(folder): archive.read(name)
      for name in names
      if name.startswith(folder)
    }


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
  if _Unpickler(file).load() != _LEGACY_MAGIC:
    raise pickle.UnpicklingError('it does not begin like a PyTorch file')
  for _ in ('protocol version', 'system information'):
    _Unpickler(file).load()
  unpickler = _Unpickler(file)
  tensors = unpickler.load()
  keys = _Unpickler(file).load()
  sizes = {
    tensor.storage.key: np.dtype(tensor.storage.dtype).itemsize
    for tensor in tensors.values()
    if isinstance(tensor, _Tensor)
  }
  data = {}
  for key in keys:
    (count,) = struct.unpack('<q', file.read(8))
    data[key] = file.read(count * sizes[key])
  return tensors, data


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a `state_dict` that `torch.save` wrote.

  Args:
    path: A `.pth` or `.pt` file.

  Returns:
    The tensors by name, as arrays.

  Raises:
    UserError: The file is missing, damaged, or holds anything but tensors.
  """
  try:
    if zipfile.is_zipfile(path):
      tensors, data = _read_zip(path)
    else:
      with open(path, 'rb') as file:
        tensors, data = _read_legacy(file)
    arrays = {}
    for name, (storage, offset, shape) in tensors.items():
      values = np.frombuffer(data[storage.key], storage.dtype)
      values = values[offset : offset + math.prod(shape)]
      arrays[name] = values.reshape(shape)
    return arrays
  except FileNotFoundError:
    raise UserError(f'there is no file {os.fspath(path)!r}') from None
  # A damaged pickle can raise nearly anything.
  except Exception as error:
    raise UserError(
      f'{os.fspath(path)!r} is not a readable PyTorch state_dict of plain '
      f'tensors ({error}): download it again, or convert it to safetensors'
    ) from error
