"""The `.qgan` file: a quantized generator, packed.

Its tensors are

  `variables/…`: every variable by its path; a quantized weight as the bytes
    of its codes (uint8, `bits.pack`), everything else as float32;
  `bitmap/…`: where there is one, which values of the weight are not 0; its
    codes are of these alone (see `weights`);
  `quantizer/…`: parameters of a weight's quantizer (scales, zero points);
  `ranges/…`: the ranges of the activations by module path, float32 [2];
  `learned/…`: parameters of learned quantizers of activations;

and its header is a JSON object: the model by name and arguments, the precision,
the bits, width, offset and shape of each weight's codes, and free metadata.
Codes are stored minus their offset, in as few bits as they need. `container`
says how all of it lies in the file.

Versions 1 and 2, which are still read, were safetensors files with these
tensors by name, and the header with a checksum as their metadata.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from flax import traverse_util
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from qgan_jax import models
from qgan_jax.artifacts.container import ChecksumError, join, split, to_json
from qgan_jax.artifacts.files import replacing
from qgan_jax.artifacts.generator import PackedGenerator
from qgan_jax.artifacts.weights import (
  decode_weight,
  encode_weights,
  float32,
  read_params,
  Tensors,
)
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, Learned, Precision, QuantizerSpec
from qgan_jax.precision.activations import RANGES

PyTree = Any
FORMAT_VERSION = 3
_OLD_VERSIONS = (1, 2)
_CONTENT = 'qgan'  # The one tensor, and the one entry of the metadata.
_MAX_ARGUMENT = 2**20
_DRAWN_ROLES = ('weights', 'activations')
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
  """What packing gained, in bytes.

  Attributes:
    float_bytes: of the parameters as float32, 4 each.
    artifact_bytes: of the file, everything included.
  """

  float_bytes: int
  artifact_bytes: int

  @property
  def ratio(self) -> float:
    """How many times smaller the artifact is."""
    return self.float_bytes / self.artifact_bytes


def save_generator(
  path: str | os.PathLike[str],
  *,
  model: str,
  model_kwargs: Mapping[str, Any],
  variables: Mapping[str, PyTree],
  ranges: Mapping[str, Any],
  precision: Precision,
  bits: Bits,
  metadata: Mapping[str, Any],
  learned: Learned | None = None,
) -> Sizes:
  """Quantizes and packs a generator into one file.

  The weights that the file decodes to are those of
  `precision.quantize_weights` as a compiled program computes it, bit for bit.

  Args:
    path: of the file, which appears whole or not at all.
    model: name of its family in `qgan_jax.models`.
    model_kwargs: attributes of the module, as JSON can hold them.
    variables: its variables in float, as trained (the moving average).
    ranges: ranges of the activations, as `Precision.apply` returns them.
    precision: how it is quantized.
    bits: and to how many bits.
    metadata: anything that JSON can hold; where the generator comes from.
    learned: parameters of learned quantizers, averaged as the variables are.

  Returns:
    The sizes.

  Raises:
    UserError: where a value is not finite, or the file cannot be written.
    ValueError: where the variables are not those of the model.
  """
  flat = traverse_util.flatten_dict(variables, sep='/')
  tensors = {f'variables/{name}': float32(x) for name, x in flat.items()}
  tensors |= {f'ranges/{name}': float32(x) for name, x in ranges.items()}
  for name, x in tensors.items():
    if not np.isfinite(x).all():
      raise UserError(
        f'{name} of the generator has values that are not finite: its '
        'training diverged; save an earlier step'
      )
  _check_variables(model, model_kwargs, tensors)
  params = traverse_util.flatten_dict(variables['params'])
  float_bytes = 4 * sum(math.prod(x.shape) for x in params.values())

  learned = learned or {}
  packed, codes = encode_weights(variables['params'], precision, bits, learned)
  tensors |= packed
  for layer, entries in learned.get('activations', {}).items():
    for key, value in entries.items():
      tensors[f'learned/{layer}/{key}'] = float32(value)
  header = {
    'model': model,
    'model_kwargs': dict(model_kwargs),
    'precision': dataclasses.asdict(_drawn(precision)),
    'bits': {
      role: jax.tree.map(float, getattr(bits, role)) for role in _DRAWN_ROLES
    },
    'codes': codes,
    'metadata': dict(metadata),
  }
  data = safetensors.numpy.save(
    {_CONTENT: join(header, tensors)}, {_CONTENT: str(FORMAT_VERSION)}
  )
  with replacing(path) as file:
    file.write(data)
  return Sizes(float_bytes, len(data))


def _drawn(precision: Precision) -> Precision:
  """What of a precision matters to a trained generator."""
  return dataclasses.replace(
    precision,
    gradients=None,
    exceptions=tuple(e for e in precision.exceptions if e[0] in _DRAWN_ROLES),
  )


def load_generator(path: str | os.PathLike[str]) -> PackedGenerator:
  """Reads what `save_generator` wrote; trusts nothing in it.

  Args:
    path: of the file.

  Returns:
    The generator, its weights decoded.

  Raises:
    UserError: for a file that is missing, something else, cut short,
      changed, of another version, or that does not fit together.
  """
  path = Path(path)
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
    return _generator(header, tensors)
  except _WRONG_CONTENT as error:
    raise UserError(
      f'the generator in {path} does not fit together ({error!r}): export it '
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
      _check_version(path, found, (FORMAT_VERSION,))
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


def _generator(header: dict[str, Any], tensors: Tensors) -> PackedGenerator:
  """The generator of a file's content, each field checked as it is used."""
  model_kwargs = {
    # A module is hashable, and a list is not.
    name: tuple(value) if isinstance(value, list) else value
    for name, value in header['model_kwargs'].items()
  }
  for name, value in model_kwargs.items():
    # A network of 10³⁰ stages would take forever to describe.
    if isinstance(value, int) and abs(value) > _MAX_ARGUMENT:
      raise ValueError(f'{name}={value}')
  precision = _precision(header['precision'])
  bits = Bits(*(_widths(header['bits'][role]) for role in _DRAWN_ROLES))
  for name, record in header['codes'].items():
    tensors[f'variables/{name}'] = decode_weight(
      name, tensors, record, precision, bits
    )
  _check_variables(header['model'], model_kwargs, tensors)
  ranges = _under('ranges/', tensors)
  for name, x in ranges.items():
    if x.shape != (2,) or x.dtype != np.float32:
      raise ValueError(f'range of {name} is {x.dtype}{list(x.shape)}')
  flat = {
    name: jnp.asarray(x) for name, x in _under('variables/', tensors).items()
  }
  return PackedGenerator(
    model=header['model'],
    model_kwargs=model_kwargs,
    variables=traverse_util.unflatten_dict(flat, sep='/'),
    ranges=ranges,
    learned=_learned(_under('learned/', tensors), precision),
    precision=precision,
    bits=bits,
    metadata=dict(header['metadata']),
  )


def _widths(record: Any) -> Any:
  """Bits as they are in a header: one number, or numbers by layer."""
  if isinstance(record, dict):
    return {layer: _widths(float(n)) for layer, n in record.items()}
  # Of `grid`, they are an exponent.
  return jnp.float32(_within(-1024, 1024, record))


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
    found[layer] = read_params(layer, tensors, expected)
  return {'activations': found} if found else {}


def _precision(record: Mapping[str, Any]) -> Precision:
  def spec(value: Mapping[str, Any] | None) -> QuantizerSpec | None:
    if value is None:
      return None
    spec = QuantizerSpec(**value)
    if spec.axis is not None and type(spec.axis) is not int:
      raise TypeError(f'axis={spec.axis!r}')
    if spec.ranges not in (None, *RANGES):
      raise ValueError(f'ranges={spec.ranges!r}')
    spec.quantizer  # noqa: B018  Raises for an unknown name.
    return spec

  exceptions = []
  for role, path, value in record.get('exceptions', ()):
    if role not in _DRAWN_ROLES or not isinstance(path, str):
      raise ValueError(f'an exception of {role!r}, {path!r}')
    exceptions.append((role, path, spec(value)))
  return Precision(
    weights=spec(record['weights']),
    activations=spec(record['activations']),
    momentum=_within(0, 1, record['momentum']),
    input_bits=int(_within(0, 1024, record['input_bits'])),
    exceptions=tuple(exceptions),
  )


def _within(low: float, high: float, value: Any) -> float:
  if not low <= value <= high:
    raise ValueError(f'{value} is not within {low} and {high}')
  return value


def _under(prefix: str, tensors: Tensors) -> Tensors:
  return {
    name.removeprefix(prefix): x
    for name, x in tensors.items()
    if name.startswith(prefix)
  }


def _check_variables(
  model: str, model_kwargs: Mapping[str, Any], tensors: Tensors
) -> None:
  """Raises ValueError where the tensors are not the model's variables."""
  if model not in models.NAMES:
    raise ValueError(f'model={model!r}: one of {", ".join(models.NAMES)}')
  module: Any = models.make_generator(model, **model_kwargs)
  hash(module)  # It is a static argument of `generator.draw`.
  labels = jnp.zeros(1, jnp.int32) if module.num_classes else None
  # Traced without arithmetic or memory, however large the model says it is.
  shapes = jax.eval_shape(
    lambda latents: module.init(jax.random.key(0), latents, labels),
    jax.ShapeDtypeStruct((1, module.latent_dim), jnp.float32),
  )
  expected = {
    name: (x.shape, np.dtype(np.float32))
    for name, x in traverse_util.flatten_dict(shapes, sep='/').items()
  }
  found = {
    name: (x.shape, x.dtype)
    for name, x in _under('variables/', tensors).items()
  }
  for name in sorted(expected.keys() | found.keys()):
    if expected.get(name) != found.get(name):
      raise ValueError(
        f'{name} is {found.get(name)}, and {model} has {expected.get(name)}'
      )
