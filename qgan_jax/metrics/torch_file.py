"""Reads the tensors of a PyTorch `state_dict` file without trusting it.

Such a file holds a pickle, which can run any code. Here `pickletools`, which
runs none, splits it into its instructions. Only the few that a `state_dict`
needs are carried out: on numbers, text, tuples and tables. A file with anything
else is refused, and no file takes more memory than its size. Both containers
can be read: the zip of PyTorch ≥ 1.6, and the plain file before it.
"""

import io
import math
import os
from pathlib import Path
import pickle
import pickletools
import struct
from typing import Any, BinaryIO, NamedTuple
import zipfile

import numpy as np

from qgan_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
  'torch FloatStorage': '<f4',
  'torch DoubleStorage': '<f8',
  'torch HalfStorage': '<f2',
  'torch LongStorage': '<i8',
}
_TABLE = 'collections OrderedDict'
_TENSOR = 'torch._utils _rebuild_tensor_v2'
# Instructions that push what stands behind them, or a value of their own.
_ARGUMENTS = {
  'BINFLOAT', 'BININT', 'BININT1', 'BININT2', 'BINSTRING', 'BINUNICODE',
  'LONG1', 'SHORT_BINSTRING', 'SHORT_BINUNICODE',
}  # fmt: skip
_VALUES = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_MAX_AXES = 8
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class _Name(NamedTuple):
  """A name of something in a module, which is never looked up."""

  name: str


class _Storage(NamedTuple):
  dtype: str
  key: str


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]


def _load(file: BinaryIO) -> Any:
  """What the pickle at a file's position makes of those few instructions."""
  stack: list[Any] = []
  marks: list[int] = []
  memo: dict[Any, Any] = {}

  def pop(count: int) -> list[Any]:
    start = len(stack) - count
    if start < (marks[-1] if marks else 0):
      raise pickle.UnpicklingError('its stack is empty')
    found = stack[start:]
    del stack[start:]
    return found

  def pop_mark() -> list[Any]:
    start = marks.pop()
    found = stack[start:]
    del stack[start:]
    return found

  for opcode, argument, _ in pickletools.genops(file):
    name = opcode.name
    if name in ('PROTO', 'FRAME'):
      pass
    elif name in _ARGUMENTS:
      stack.append(argument)
    elif name in _VALUES:
      stack.append(_VALUES[name])
    elif name == 'GLOBAL':
      stack.append(_Name(_known(_is(argument, str))))
    elif name == 'STACK_GLOBAL':
      module, attribute = pop(2)
      name = f'{_is(module, str)} {_is(attribute, str)}'
      stack.append(_Name(_known(name)))
    elif name == 'MARK':
      marks.append(len(stack))
    elif name == 'TUPLE':
      stack.append(tuple(pop_mark()))
    elif name in _TUPLES:
      stack.append(tuple(pop(_TUPLES[name])))
    elif name == 'EMPTY_DICT':
      stack.append({})
    elif name == 'EMPTY_LIST':
      stack.append([])
    elif name in ('SETITEM', 'SETITEMS'):
      pairs = pop(2) if name == 'SETITEM' else pop_mark()
      keys = pairs[::2]
      if not all(isinstance(key, str) for key in keys):
        raise pickle.UnpicklingError('a key is no text')
      _top(stack, dict).update(zip(keys, pairs[1::2], strict=True))
    elif name in ('APPEND', 'APPENDS'):
      items = pop(1) if name == 'APPEND' else pop_mark()
      _top(stack, list).extend(items)
    elif name in ('BINPUT', 'LONG_BINPUT'):
      memo[argument] = stack[-1]
    elif name == 'MEMOIZE':
      memo[len(memo)] = stack[-1]
    elif name in ('BINGET', 'LONG_BINGET'):
      stack.append(memo[argument])
    elif name == 'BINPERSID':
      # ('storage', type, key, device, number of elements, …)
      (identity,) = pop(1)
      _, kind, key, *_ = identity
      stack.append(_Storage(_DTYPES[_is(kind, _Name).name], _is(key, str)))
    elif name == 'REDUCE':
      function, arguments = pop(2)
      stack.append(_made(_is(function, _Name).name, arguments))
    elif name == 'BUILD':  # Attributes of a table: versions of modules.
      pop(1)
      _top(stack, dict)
    elif name == 'STOP':
      (value,) = stack
      return value
    else:
      raise pickle.UnpicklingError(f'it has the instruction {name}')
  raise pickle.UnpicklingError('it has no end')


def _known(name: str) -> str:
  if name not in (_TABLE, _TENSOR, *_DTYPES):
    raise pickle.UnpicklingError(
      f'it wants to use {name[:100].replace(" ", ".")}'
    )
  return name


def _is(value: Any, kind: type) -> Any:
  if type(value) is not kind:
    raise pickle.UnpicklingError(f'a {type(value).__name__} is out of place')
  return value


def _top(stack: list[Any], kind: type) -> Any:
  return _is(stack[-1], kind)


def _made(name: str, arguments: Any) -> Any:
  """What a known function makes of its arguments."""
  if name == _TABLE and arguments == ():
    return {}
  if name != _TENSOR:
    raise pickle.UnpicklingError(f'it calls {name}')
  storage, offset, shape, stride, *_ = arguments
  if len(_is(shape, tuple)) > _MAX_AXES:
    raise pickle.UnpicklingError(f'a tensor has {len(shape)} axes')
  for number in (offset, *shape):
    if type(number) is not int or number < 0:
      raise pickle.UnpicklingError('a tensor has an offset or shape below 0')
  if stride != tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))):
    raise pickle.UnpicklingError('a tensor is not contiguous')
  return _Tensor(_is(storage, _Storage), offset, shape)


def _read_zip(content: bytes) -> tuple[Any, dict[str, bytes]]:
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    entries = archive.infolist()
    # Entries can be compressed, or share their bytes.
    if sum(entry.file_size for entry in entries) > len(content):
      raise pickle.UnpicklingError('it holds more bytes than it has')
    names = [entry.filename for entry in entries]
    pickles = [name for name in names if name.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise pickle.UnpicklingError('it is a zip file without one data.pkl')
    folder = pickles[0].removesuffix('data.pkl') + 'data/'
    tensors = _load(io.BytesIO(archive.read(pickles[0])))
    return tensors, {
      name.removeprefix(folder): archive.read(name)
      for name in names
      if name.startswith(folder)
    }


def _read_legacy(content: bytes) -> tuple[Any, dict[str, bytes]]:
  file = io.BytesIO(content)
  if _load(file) != _LEGACY_MAGIC:
    raise pickle.UnpicklingError('it does not begin like a PyTorch file')
  for _ in ('protocol version', 'system information'):
    _load(file)
  tensors = _is(_load(file), dict)
  keys = _load(file)
  sizes = {
    tensor.storage.key: np.dtype(tensor.storage.dtype).itemsize
    for tensor in tensors.values()
    if isinstance(tensor, _Tensor)
  }
  data = {}
  for key in _is(keys, list):
    (count,) = struct.unpack('<Q', file.read(8))
    size = count * sizes[_is(key, str)]
    if size > len(content):
      raise pickle.UnpicklingError(f'a storage of {size} bytes is cut short')
    data[key] = file.read(size)
  return tensors, data


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a `state_dict` that `torch.save` wrote.

  Args:
    path: A `.pth` or `.pt` file.

  Returns:
    The tensors by name, as arrays; together no larger than the file.

  Raises:
    UserError: The file is missing, damaged, or holds anything but tensors.
  """
  try:
    content = Path(path).read_bytes()
    zipped = zipfile.is_zipfile(io.BytesIO(content))
    tensors, data = (_read_zip if zipped else _read_legacy)(content)
    arrays, total = {}, 0
    for name, tensor in _is(tensors, dict).items():
      storage, offset, shape = _is(tensor, _Tensor)
      values = np.frombuffer(data[storage.key], storage.dtype)
      values = values[offset : offset + math.prod(shape)]
      arrays[name] = values.reshape(shape)
      total += values.nbytes
    if total > len(content):
      raise pickle.UnpicklingError('tensors share their storage')
    return arrays
  except FileNotFoundError:
    raise UserError(f'there is no file {os.fspath(path)!r}') from None
  # A damaged pickle can raise nearly anything.
  except Exception as error:
    raise UserError(
      f'{os.fspath(path)!r} is not a readable PyTorch state_dict of plain '
      f'tensors ({error}): download it again, or convert it to safetensors'
    ) from error
