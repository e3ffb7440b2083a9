"""Damages artifacts and weights in thousands of ways, and reads each.

  python benchmarks/mutations.py --out=benchmarks/results
  python benchmarks/mutations.py --kinds=qgan,pt --scale=0.1

10,000 mutated .qgan, 2,000 .onnx, 2,000 .tflite, 2,000 .stablehlo and 2,000
PyTorch files. A worker process reads each and draws from it; it is watched from
outside, and a new one takes over where it has died. Every other file gets a
right checksum after its mutation, as a stranger would write it. What can become
of a file:

  refused: one sentence, a `UserError` that names the file;
  same: it is read, and what is drawn equals the original's;
  differs: it is read, and is another network. Where the checksum was not made
    right again, that is a failure. Where it was, the file is a whole one that
    somebody else could have written: a changed weight is a weight;
  failed: another exception, a worker that has died, more than `--seconds` or
    more than 1 GiB, in the worker or the process that runs its program.

PyTorch files have no checksum but that of a zip archive's entries. Their arrays
are compared.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
import hashlib
import io
import itertools
import json
import math
from multiprocessing.connection import Connection, Pipe
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple
import zipfile

from absl import app, flags
import measuring
import numpy as np

FILES = {
  'qgan': 10_000,
  'onnx': 2_000,
  'tflite': 2_000,
  'stablehlo': 2_000,
  'pt': 2_000,
}
MEMORY = 2**30
LATENT_DIM, CLASSES = 8, 3


class Case(NamedTuple):
  """A mutated file.

  Attributes:
    content: of the file.
    resealed: whether its checksum is right.
  """

  content: bytes
  resealed: bool


# Mutations of bytes.


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
  """One to three changes at random places: most of a file are weights."""
  data = bytearray(content)
  kind, area = rng.integers(4), rng.integers(3)

  def place() -> int:
    most = len(data) if area == 0 else min(len(data), 6000)
    at = int(rng.integers(most))
    return len(data) - 1 - at if area == 2 else at

  for _ in range(rng.integers(1, 4)):
    if kind == 0:
      data[place()] ^= 1 << rng.integers(8)
    elif kind == 1:
      data[place()] = rng.integers(256)
    elif kind == 2:  # A piece over another.
      start, source, size = place(), place(), int(rng.integers(1, 64))
      data[start : start + size] = content[source : source + size]
    else:
      start = place()
      del data[start : start + int(rng.integers(1, 64))]
  return bytes(data)


WRONG = [
  None, True, -1, 0, 1, 7, 2**31, 10**12, 10**30, 0.5, -0.0, 1e308, '', 'x',
  '\x1b[2J', [], [[]], [1, 2], [2**20] * 4, {}, {'x': 1}, 'affine', 'dcgan',
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
  """The path of every value inside a JSON value."""
  yield path
  items: Any = value.items() if isinstance(value, dict) else ()
  for key, inner in enumerate(value) if isinstance(value, list) else items:
    yield from places(inner, (*path, key))


def mutate_json(rng: np.random.Generator, text: bytes) -> bytes:
  """One value replaced or left out, or the bytes changed."""
  if rng.integers(4) == 0:
    return mutate(rng, text)
  value = json.loads(text)
  found = [path for path in places(value) if path]
  *outer, last = found[rng.integers(len(found))]
  inside = value
  for key in outer:
    inside = inside[key]
  wrong = rng.integers(len(WRONG) + 2)
  if wrong == len(WRONG):
    del inside[last]
  elif wrong > len(WRONG):
    inside[last] = json.loads('[' * 900 + ']' * 900)
  else:
    inside[last] = WRONG[wrong]
  return json.dumps(value).encode()


def mutate_array(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
  """Some values of an array replaced, or another shape."""
  if x.size == 0 or rng.integers(4) == 0:
    return x.reshape(-1)[: x.size // 2]
  values = x.copy()
  wrong = [255, 0]
  if x.dtype.kind == 'f':
    wrong += [np.nan, np.inf, -1, 1e30]
  many = 1 if rng.integers(2) else x.size
  values.reshape(-1)[rng.integers(x.size, size=many)] = rng.choice(wrong)
  return values


# Each format, with its checksum made right again.


def reseal_qgan(rng: np.random.Generator, content: bytes) -> bytes:
  import safetensors.numpy

  from qgan_jax.artifacts import container

  stored = safetensors.numpy.load(content)['qgan']
  header, tensors = container.split(stored)
  if rng.integers(3) == 0:  # Bytes behind the checksum.
    body = mutate(rng, stored.tobytes()[32:])
    stored = np.frombuffer(hashlib.sha256(body).digest() + body, np.uint8)
  else:
    if rng.integers(2):
      header = json.loads(mutate_json(rng, json.dumps(header).encode()))
    else:
      name = sorted(tensors)[rng.integers(len(tensors))]
      tensors[name] = mutate_array(rng, tensors[name])
    stored = container.join(header, tensors)
  return safetensors.numpy.save({'qgan': stored}, {'qgan': '3'})


def reseal_onnx(rng: np.random.Generator, content: bytes) -> bytes:
  import onnx

  from qgan_jax.artifacts.onnx_file import sealed

  model = onnx.load_from_string(content)
  del model.metadata_props[1]
  if rng.integers(2):
    return sealed(mutate(rng, model.SerializeToString()))
  entry = model.metadata_props[0]
  changed = mutate_json(rng, entry.value.encode())
  entry.value = changed.decode(errors='replace')
  return sealed(model.SerializeToString())


def reseal_tflite(rng: np.random.Generator, content: bytes) -> bytes:
  from ai_edge_litert import schema_py_generated as schema
  import flatbuffers

  from qgan_jax.artifacts.tflite_builder import IDENTIFIER, sealed

  body = content[: -len(sealed(b''))]
  if rng.integers(2):
    return sealed(mutate(rng, body))
  model = schema.ModelT.InitFromPackedBuf(body)
  said = model.buffers[model.metadata[0].buffer]
  said.data = np.frombuffer(mutate_json(rng, said.data.tobytes()), np.uint8)
  writer = flatbuffers.Builder(1024)
  writer.Finish(model.Pack(writer), IDENTIFIER)
  return sealed(bytes(writer.Output()))


def reseal_stablehlo(rng: np.random.Generator, content: bytes) -> bytes:
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    text, program = map(archive.read, ('generator.json', 'program'))
  if rng.integers(2):
    program = mutate(rng, program)
  else:
    text = mutate_json(rng, text)
  try:
    record = json.loads(text)
    record['sha256'] = hashlib.sha256(program).hexdigest()
    text = json.dumps(record).encode()
  except (ValueError, TypeError, RecursionError):
    pass
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('generator.json', text)
    archive.writestr('program', program)
  return file.getvalue()


def reseal_pt(rng: np.random.Generator, content: bytes) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    names = archive.namelist()
    # The first says what the others are.
    wrong = names[0]
    if rng.integers(4) == 0:
      wrong = names[rng.integers(len(names))]
    with zipfile.ZipFile(file, 'w') as changed:
      for name in names:
        data = archive.read(name)
        changed.writestr(name, mutate(rng, data) if name == wrong else data)
  return file.getvalue()


RESEAL: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
  'qgan': reseal_qgan,
  'onnx': reseal_onnx,
  'tflite': reseal_tflite,
  'stablehlo': reseal_stablehlo,
  'pt': reseal_pt,
}


def make_case(kind: str, number: int, original: bytes) -> Case:
  """The mutated file of a number, always the same."""
  rng = np.random.default_rng([sorted(FILES).index(kind), number])
  if number % 2:
    while True:
      try:
        return Case(RESEAL[kind](rng, original), True)
      except (ValueError, TypeError, AttributeError, LookupError):
        continue  # What cannot be written: another one.
  return Case(mutate(rng, original), False)


# The originals.


def write_originals(folder: Path, kinds: Sequence[str]) -> dict[str, Path]:
  """A file of each kind: a random generator of 28×28 pixels, 8 bits."""
  weights = folder / 'weights.pt'
  write_pt(weights)
  if list(kinds) == ['pt']:
    return {'pt': weights}
  import jax
  import jax.numpy as jnp

  from qgan_jax import artifacts, models
  from qgan_jax.artifacts.formats import export
  from qgan_jax.precision import Bits, inputs_like, make_precision, Quantized

  module = models.make_generator(
    'dcgan', channels=16, latent_dim=LATENT_DIM, num_classes=CLASSES
  )
  latents, labels = inputs()
  variables = jax.jit(module.init)(jax.random.key(0), latents, labels)
  # Of a trained network's size.
  variables = jax.tree.map(lambda x: x * (12 if x.ndim > 1 else 1), variables)
  precision = make_precision(
    weights='uniform', activations='affine', per_channel=True, ranges='moving',
    momentum=0.9, input_bits=8,
  )  # fmt: skip
  bits = Bits(jnp.float32(8), jnp.float32(8))
  ranges, _ = jax.jit(
    lambda v: precision.init(module, v, bits, latents, labels)
  )(variables)  # fmt: skip
  network = Quantized(
    module, precision, bits, variables, ranges,
    inputs=inputs_like(latents, labels),
  )  # fmt: skip
  path = folder / 'generator.qgan'
  artifacts.save(path, network, metadata={'dataset': 'none', 'step': 7})
  export(path, ['onnx', 'tflite', 'stablehlo'], folder)
  return {
    'qgan': path,
    'onnx': folder / 'generator-onnxruntime.onnx',
    'tflite': folder / 'generator.tflite',
    'stablehlo': folder / 'generator.stablehlo',
    'pt': weights,
  }


def write_pt(path: Path) -> None:
  """What `torch.save` writes of two layers, by its bytes."""

  def text(value: str) -> bytes:
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()

  table = b'ccollections\nOrderedDict\n)R'
  shapes = {'a.weight': (16, 8, 3, 3), 'a.bias': (16,), 'b.weight': (10, 16)}
  data, items = {}, []
  rng = np.random.default_rng(0)
  for key, (name, shape) in enumerate(shapes.items()):
    x = rng.standard_normal(shape).astype('<f4')
    data[str(key)] = x.tobytes()
    stride = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    sizes, strides = (
      b'(' + b''.join(b'M' + n.to_bytes(2, 'little') for n in values) + b't'
      for values in (shape, stride)
    )
    items.append(
      text(name) + b'ctorch._utils\n_rebuild_tensor_v2\n((' + text('storage')
      + b'ctorch\nFloatStorage\n' + text(str(key)) + text('cpu')
      + b'J' + x.size.to_bytes(4, 'little') + b'tQK\0' + sizes + strides
      + b'\x89' + table + b'tR'
    )  # fmt: skip
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(
      'weights/data.pkl', b'\x80\x02' + table + b'(' + b''.join(items) + b'u.'
    )
    for key, content in data.items():
      archive.writestr(f'weights/data/{key}', content)


def inputs() -> tuple[np.ndarray, np.ndarray]:
  from qgan_jax.artifacts import drawer

  latents = drawer.latents(0, 0, LATENT_DIM)
  return latents, (np.arange(len(latents)) % CLASSES).astype(np.int32)


# The worker, and who watches it.


def read_file(kind: str, path: Path, seconds: float) -> Any:
  """What a file gives: the images of a seed, or a table of arrays."""
  if kind == 'pt':
    from qgan_jax.metrics.torch_file import read_state_dict

    return read_state_dict(path)
  from qgan_jax import artifacts
  from qgan_jax.artifacts.drawer import batches

  # The runtime that the file was made for.
  drawer = artifacts.open_drawer(path, seconds=seconds)
  return next(batches(drawer, num=64, seed=0))


def digest(found: Any) -> str:
  """A hash that tells apart what files give."""
  items = found.items() if isinstance(found, dict) else enumerate(found)
  hashed = hashlib.sha256()
  for name, x in items:
    x = np.asarray(x)
    hashed.update(f'{name} {x.dtype} {x.shape} '.encode() + x.tobytes())
  return hashed.hexdigest()


def work(kind: str, connection: Connection, seconds: float) -> None:
  """Reads files by their paths, and says what became of each."""
  from qgan_jax.errors import UserError

  for number in itertools.count(1):
    if number % 50 == 0 and kind == 'qgan':
      import jax

      jax.clear_caches()  # Programs of other networks, compiled here.
    try:
      path = Path(connection.recv_bytes().decode())
    except EOFError:
      return
    try:
      answer = digest(read_file(kind, path, seconds))
    except UserError as error:
      one = '\n' not in str(error) and str(path.name) in str(error)
      answer = 'refused' if one else f'failed: no sentence: {error}'
    except Exception as error:
      answer = f'failed: {type(error).__name__}: {error}'
    # Not `ru_maxrss` of itself, which has that of the process it comes from.
    status = Path('/proc/self/status').read_text()
    own = int(status.partition('VmHWM:')[2].split()[0])
    programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = 1024 * max(own, programs)
    connection.send_bytes(json.dumps([answer, peak]).encode())


class Worker:
  """A process that reads files; another takes over where it dies."""

  def __init__(self, kind: str, seconds: float) -> None:
    self._kind, self._seconds = kind, seconds
    self._start()

  def _start(self) -> None:
    self._connection, other = Pipe()
    with other:
      self._process = subprocess.Popen(
        [sys.executable, __file__, f'--worker={self._kind}',
         f'--descriptor={other.fileno()}', f'--seconds={self._seconds}'],
        pass_fds=(other.fileno(),), stderr=subprocess.DEVNULL,
      )  # fmt: skip

  def read(self, path: Path) -> tuple[str, int]:
    """(what became of a file, the most bytes of memory so far)."""
    self._connection.send_bytes(str(path).encode())
    try:
      if self._connection.poll(self._seconds):
        answer, peak = json.loads(self._connection.recv_bytes())
        return answer, peak
      verdict = f'failed: more than {self._seconds:g} seconds'
    except EOFError:
      verdict = f'failed: the worker died ({self._process.wait()})'
    self.close()
    self._start()
    return verdict, 0

  def close(self) -> None:
    """Ends the process."""
    self._connection.close()
    self._process.kill()
    self._process.wait()


def run_kind(kind: str, path: Path, count: int, seconds: float) -> dict:
  """Mutates a file so many times; what became of the files, counted."""
  original = path.read_bytes()
  place = path.with_name(f'mutated{path.suffix}')
  worker = Worker(kind, seconds)
  place.write_bytes(original)
  expected, _ = worker.read(place)
  if expected.startswith(('refused', 'failed')):
    raise RuntimeError(f'the original of {kind}: {expected}')
  counts: dict[str, Counter[str]] = {'raw': Counter(), 'resealed': Counter()}
  failures, peak, began = [], 0, time.perf_counter()
  for number in range(count):
    case = make_case(kind, number, original)
    place.write_bytes(case.content)
    answer, memory = worker.read(place)
    peak = max(peak, memory)
    verdict = answer.partition(':')[0]
    if verdict not in ('refused', 'failed'):
      verdict = 'same' if answer == expected else 'differs'
    group = 'resealed' if case.resealed else 'raw'
    counts[group][verdict] += 1
    unsealed = verdict == 'differs' and not case.resealed
    if verdict == 'failed' or unsealed or memory > MEMORY:
      failures.append([number, group, answer[:300], memory])
    if memory > MEMORY:  # The most that a process has taken stays with it.
      worker.close()
      worker = Worker(kind, seconds)
  worker.close()
  return {
    'files': count,
    **{group: dict(counter) for group, counter in counts.items()},
    'peak_mib': peak >> 20,
    'seconds': round(time.perf_counter() - began),
    'failures': failures,
  }


_OUT = flags.DEFINE_string('out', None, 'A folder for the figures as JSON.')
_KINDS = flags.DEFINE_list('kinds', list(FILES), 'Kinds of files.')
_SCALE = flags.DEFINE_float('scale', 1.0, 'Share of the files to make.')
_SECONDS = flags.DEFINE_float(
  'seconds', 60, 'That a file may take; more on a machine that is busy.'
)
_WORKER = flags.DEFINE_string('worker', None, 'Of this script itself.')
_DESCRIPTOR = flags.DEFINE_integer('descriptor', 0, 'Of this script itself.')


def main(argv: list[str]) -> None:
  del argv
  if _WORKER.value:
    work(_WORKER.value, Connection(_DESCRIPTOR.value), _SECONDS.value / 2)
    return
  record = measuring.start_record(
    ['jax', 'flax', 'onnxruntime', 'openvino', 'ai-edge-litert', 'numpy'],
    scale=_SCALE.value,
  )
  with tempfile.TemporaryDirectory() as folder:
    paths = write_originals(Path(folder), _KINDS.value)
    for kind in _KINDS.value:
      count = round(FILES[kind] * _SCALE.value)
      record[kind] = run_kind(kind, paths[kind], count, _SECONDS.value)
      measuring.say(f'{kind}: {record[kind]}')
      measuring.save(
        record, Path(_OUT.value) if _OUT.value else None, 'mutations'
      )
  if any(record[kind]['failures'] for kind in _KINDS.value):
    sys.exit(1)


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  app.run(main)
