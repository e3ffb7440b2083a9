"""The `.qgan` file: a quantized network, packed.

Its tensors are

  `variables/…`: every variable by its path; a quantized weight as the bytes
    of its codes (uint8, `bits.pack`), everything else as float32;
  `bitmap/…`: for some weights, which of their values are not 0; only the
    codes of these are then stored (see `weights`);
  `quantizer/…`: parameters of a weight's quantizer (scales, zero points);
  `ranges/…`: the ranges of the activations by module path, float32 [2];
  `learned/…`: parameters of learned quantizers of activations;

and its header is a JSON object: the class of the network's module by name, its
attributes, what it is called with, the precision, the bits, width, offset and
shape of each weight's codes, and free metadata.
Codes are stored minus their offset, in as few bits as they need. `container`
describes the layout of the file.

Earlier format versions can still be read. Version 3 does not store which layers
read the network's own input; the layer called first is taken for it. Versions 1
and 2 are safetensors files with these tensors by name, and with the header and
a checksum as their metadata.
"""

from collections.abc import Mapping, Sequence
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from flax import traverse_util
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from qgan_jax.artifacts import architecture
from qgan_jax.artifacts import header as header_lib
from qgan_jax.artifacts.container import ChecksumError, join, split, to_json
from qgan_jax.artifacts.described import check_metadata
from qgan_jax.artifacts.files import replacing
from qgan_jax.artifacts.variables import (
  check_number,
  check_shapes,
  not_finite,
  restored,
  variables_of,
)
from qgan_jax.artifacts.weights import (
  decode_weight,
  encode_weights,
  float32,
  read_params,
  shape_of,
  Tensors,
)
from qgan_jax.errors import UserError
from qgan_jax.precision import (
  Input,
  inputs_like,
  Learned,
  Precision,
  Quantized,
  quantized_of,
)

PyTree = Any
FORMAT_VERSION = 4
_OLD_VERSIONS = (1, 2)  # Of another layout.
_CONTENT = 'qgan'  # The one tensor, and the one entry of the metadata.
# What wrong content makes the reading of it raise.
_WRONG_CONTENT = (
  ArithmeticError,
  AttributeError,
  LookupError,
  RecursionError,
  TypeError,
  ValueError,
  flax.errors.FlaxError,
)


class Sizes(NamedTuple):
  """Size of a network before and after packing, in bytes.

  Attributes:
    float_bytes: of the parameters as float32, 4 bytes each.
    artifact_bytes: of the whole file.
  """

  float_bytes: int
  artifact_bytes: int

  @property
  def ratio(self) -> float:
    """How many times smaller the file is than the float parameters."""
    return self.float_bytes / self.artifact_bytes


class Artifact(NamedTuple):
  """The content of a `.qgan` file.

  Attributes:
    network: the network; its weights are decoded (`rounded` is true).
    metadata: where it comes from: data set, configuration, step, seed….
  """

  network: Quantized
  metadata: dict[str, Any]


def save(
  path: str | os.PathLike[str],
  network: Quantized | nn.Module,
  *,
  metadata: Mapping[str, Any] | None = None,
  inputs: Any = None,
) -> Sizes:
  """Quantizes a network and packs it into one file.

  Example:
    >>> import os, tempfile
    >>> import flax.linen as nn
    >>> import jax
    >>> import qgan_jax as q
    >>> module = nn.Dense(64)
    >>> inputs = jax.numpy.ones((256, 32))
    >>> variables = module.init(jax.random.key(0), inputs)
    >>> network = q.quantize((module, variables), bit_width=4, calibrate=inputs)
    >>> path = os.path.join(tempfile.mkdtemp(), 'dense.qgan')
    >>> sizes = q.save(path, network, metadata={'trained_by': 'me'})
    >>> sizes.ratio > 4
    True

  The weights read from the file are bit for bit those that
  `Precision.quantize_weights` gives in a compiled program.

  A network of any Linen module can be saved. The file stores the name of its
  class, and its attributes if JSON can hold them. Otherwise the module has to
  be given to `load`.

  Args:
    path: of the file, which is written completely or not at all.
    network: the network, or a bound module that `quantize` returned.
    metadata: where the network comes from: anything that JSON can hold.
    inputs: what the network is called with: an array [N, …] or its shape, or a
      tuple of them. Needed only if `Quantized.inputs` is None and the module
      has no attribute `latent_dim`.

  Returns:
    The sizes of the float parameters and of the file.

  Raises:
    UserError: a value is not finite, what could not be read again would be
      written, or the file cannot be written.
    ValueError: the variables are not those of the module, or it is not known
      what the network is called with.
  """
  network = _with_inputs(_network(network), inputs)
  flat = traverse_util.flatten_dict(network.variables, sep='/')
  tensors = {f'variables/{name}': float32(x) for name, x in flat.items()}
  tensors |= {
    f'ranges/{name}': float32(x) for name, x in network.ranges.items()
  }
  name = type(network.module).__name__
  expected = traverse_util.flatten_dict(variables_of(network), sep='/')
  check_shapes(name, expected, {k: np.shape(x) for k, x in flat.items()})
  for name, x in flat.items():
    if (float32(x) != np.asarray(x)).any():
      raise ValueError(f'{name} is {x.dtype}, which float32 does not hold')
  params = traverse_util.flatten_dict(network.variables['params'])
  float_bytes = 4 * sum(math.prod(x.shape) for x in params.values())

  packed, codes = encode_weights(network)
  tensors |= packed
  for layer, entries in network.learned.get('activations', {}).items():
    for key, value in entries.items():
      tensors[f'learned/{layer}/{key}'] = float32(value)
  wrong = not_finite(tensors)
  if wrong:
    raise UserError(
      f'{wrong} of the network has values that are not finite: its training '
      'diverged; save an earlier step'
    )
  header = {
    **architecture.record_of(network.module),
    **header_lib.record_of(network),
    'codes': codes,
    'metadata': dict(metadata or {}),
  }
  header_lib.read_inputs(header['inputs'])  # What cannot be read is not saved.
  try:
    check_metadata(header['metadata'])
    data = safetensors.numpy.save(
      {_CONTENT: join(header, tensors)}, {_CONTENT: str(FORMAT_VERSION)}
    )
    check_number(expected, len(data))
  except ValueError as error:
    raise UserError(f'{path} cannot be written: {error}') from None
  with replacing(path) as file:
    file.write(data)
  return Sizes(float_bytes, len(data))


def _network(given: Quantized | nn.Module) -> Quantized:
  network = quantized_of(given) if isinstance(given, nn.Module) else given
  if not isinstance(network, Quantized):
    raise ValueError(
      f'a {type(given).__name__} cannot be saved: give what quantize returned'
    )
  return network


def _with_inputs(network: Quantized, inputs: Any) -> Quantized:
  """The network, which knows what it is called with."""
  module: Any = network.module
  if inputs is not None:
    given = inputs if isinstance(inputs, tuple | list) else (inputs,)
    return network.replace(inputs=inputs_like(*given))
  if network.inputs is not None:
    return network
  latent_dim = getattr(module, 'latent_dim', None)
  if type(latent_dim) is not int:
    raise ValueError(
      f'nobody says what {type(module).__name__} is called with: give inputs=, '
      'arrays or their shapes'
    )
  labels = (Input((), 'int32'),) if getattr(module, 'num_classes', 0) else ()
  return network.replace(inputs=(Input((latent_dim,), 'float32'), *labels))


def load(
  path: str | os.PathLike[str], module: nn.Module | None = None
) -> Quantized:
  """Reads the network from a file that `save` wrote; see `read`."""
  return read(path, module).network


def read(
  path: str | os.PathLike[str], module: nn.Module | None = None
) -> Artifact:
  """Reads the network and the metadata from a file that `save` wrote.

  The content is checked before it is used, and nothing is imported because a
  file names it.

  Args:
    path: of the file.
    module: the network's module. Needed only if its class is not imported, or
      if it has attributes that JSON cannot hold.

  Returns:
    The network, with decoded weights, and the metadata.

  Raises:
    UserError: the file is missing, no .qgan file, cut short, changed, of an
      unknown version, or inconsistent; or `module` is needed.
    ValueError: `module` is not a Linen module, or is bound.
  """
  path = Path(path)
  if module is not None and not (
    isinstance(module, nn.Module) and module.scope is None
  ):
    raise ValueError(f'module={module!r}: a Linen module that is not bound')
  try:
    header, tensors = _content(path)
  except OSError as error:
    raise UserError(
      f'cannot read {path}: {error.strerror or error}; give the path of a '
      '.qgan file'
    ) from error
  except ChecksumError:
    raise UserError(
      f'{path} was changed after it was written, its checksum does not match: '
      'copy or export it again'
    ) from None
  except (safetensors.SafetensorError, *_WRONG_CONTENT) as error:
    raise UserError(
      f'{path} is not a whole .qgan file ({error}): copy or export it again'
    ) from error
  try:
    if module is None:
      module = architecture.module_of(header, path)
    network = _quantized(module, header, tensors, path.stat().st_size)
    return Artifact(network, dict(header['metadata']))
  except _WRONG_CONTENT as error:
    raise UserError(
      f'the network in {path} does not fit together ({error!r}): export it '
      'again'
    ) from error


def _content(path: Path) -> tuple[dict[str, Any], Tensors]:
  """(header, tensors) of a file of any version."""
  with safetensors.safe_open(path, framework='numpy') as file:
    text = (file.metadata() or {}).get(_CONTENT)
    if text is None:
      raise UserError(
        f'{path} is a safetensors file without a generator: give a .qgan file'
      )
    found = json.loads(text)
    if type(found) is int:
      _check_version(path, found, (3, FORMAT_VERSION))
      return split(file.get_tensor(_CONTENT))
    _check_version(path, found['version'], _OLD_VERSIONS)
    tensors = {name: _read(file, name) for name in file.keys()}  # noqa: SIM118
  if found.pop('sha256', None) != _checksum(found, tensors):
    raise ChecksumError
  return found, tensors


def _check_version(path: Path, version: Any, known: Sequence[int]) -> None:
  if type(version) is not int or version not in known:
    raise UserError(
      f'{path} has format version {version!r}, and this qgan_jax reads '
      f'versions 1 to {FORMAT_VERSION}: install the qgan_jax that wrote it, or '
      'export it again'
    )


def _read(file: Any, name: str) -> np.ndarray:
  dtype = file.get_slice(name).get_dtype()
  if dtype not in ('U8', 'F32'):
    raise ValueError(f'{name} is of type {dtype}')
  return file.get_tensor(name)


def _checksum(header: Mapping[str, Any], tensors: Tensors) -> str:
  """SHA-256 of an old version's header, without it, and of all tensors."""
  digest = hashlib.sha256(to_json(header).encode())
  for name, x in sorted(tensors.items()):
    digest.update(f'{name} {x.dtype} {x.shape}'.encode())
    digest.update(x.tobytes())
  return digest.hexdigest()


def _quantized(
  module: nn.Module, header: dict[str, Any], tensors: Tensors, size: int
) -> Quantized:
  """The network of a file's content, each field checked as it is used.

  Nothing is decoded before the shapes are known to be those of the module, and
  not too many for a file of `size` bytes.
  """
  precision = header_lib.read_precision(header['precision'])
  bits = header_lib.read_bits(header['bits'])
  network = _with_inputs(
    Quantized(
      module,
      precision,
      bits,
      {},
      {},
      {},
      # Files of earlier versions are of modules that tell by themselves.
      inputs=(
        header_lib.read_inputs(header['inputs']) if 'inputs' in header else None
      ),
      rounded=True,
    ),
    None,
  )
  wrong = not_finite(tensors)
  if wrong:
    raise ValueError(f'{wrong} has values that are not finite')
  stored = {k: x.shape for k, x in _under('variables/', tensors).items()}
  for name, record in header['codes'].items():
    stored[name] = shape_of(name, record)
  tree = variables_of(network)
  expected = traverse_util.flatten_dict(tree, sep='/')
  check_shapes(type(module).__name__, expected, stored)
  check_number(expected, size)
  fitted: dict[str, Any] = {}
  for name, record in header['codes'].items():
    decoded = decode_weight(name, tensors, record, precision, bits)
    tensors[f'variables/{name}'] = decoded.values
    if decoded.params is not None:
      fitted[decoded.layer] = decoded.params
  ranges = {}
  for name, x in _under('ranges/', tensors).items():
    if x.shape != (2,) or x.dtype != np.float32:
      raise ValueError(f'range of {name} is {x.dtype}{list(x.shape)}')
    if x[0] > x[1]:
      raise ValueError(f'range of {name} is from {x[0]} to {x[1]}')
    ranges[name] = jnp.asarray(x)
  learned = _learned(_under('learned/', tensors), precision)
  network = network.replace(
    variables=restored(tree, _under('variables/', tensors)),
    ranges=ranges,
    learned=learned | ({'weights': fitted} if fitted else {}),
  )
  if network.inputs is not None:
    # Traced alone: whatever of it cannot be called is found here.
    jax.eval_shape(Quantized.__call__, network, *network.example())
  return network


def _learned(tensors: Tensors, precision: Precision) -> Learned:
  """Learned parameters of activations, {} where there are none."""
  layers = {name.rpartition('/')[0] for name in tensors}
  found = {}
  for layer in sorted(layers):
    spec = precision.spec('activations', layer)
    if spec is None or not spec.quantizer.learned:
      raise ValueError(f'the activations of {layer!r} learn nothing')
    example = jax.ShapeDtypeStruct((1,), jnp.float32)
    bits = jax.ShapeDtypeStruct((), jnp.float32)
    expected = jax.eval_shape(spec.quantizer.fit, example, bits)
    found[layer] = read_params(layer, tensors, expected, spec.quantizer.learned)
  return {'activations': found} if found else {}


def _under(prefix: str, tensors: Tensors) -> Tensors:
  return {
    name.removeprefix(prefix): x
    for name, x in tensors.items()
    if name.startswith(prefix)
  }
