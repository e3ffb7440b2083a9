"""The `.stablehlo` file: a program that JAX runs without this package.

It is a zip archive without compression. `program` is what `jax.export`
serialized; it contains the packed codes of the weights as constants, and
unpacks them in its first instructions. `generator.json` holds the shapes of its
arguments, and the program's SHA-256. All that is needed is

  with zipfile.ZipFile('generator.stablehlo') as file:
    program = jax.export.deserialize(bytearray(file.read('program')))
  images = program.call(latents)  # …, labels) if it is conditional

with latents float32 [batch, latent_dim] for any batch, labels int32 [batch],
images float32 [batch, H, W, C] in [−1, 1].
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import io
import json
import math
from typing import Any
import zipfile

from flax import traverse_util
import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.bits import pack
from qgan_jax.artifacts.inference import describe, latents_of
from qgan_jax.artifacts.levels import integer_codes
from qgan_jax.artifacts.stablehlo_file import PROGRAM, RECORD, VERSION
from qgan_jax.errors import UserError
from qgan_jax.precision import Quantized

PLATFORMS = ('cpu', 'cuda', 'tpu')
# Of a code: from here on, floats are hardly larger.
_MAX_BITS = 16
_MAX_LEVELS = 256  # Of a table.


def stablehlo_model(network: Quantized, metadata: Mapping[str, Any]) -> bytes:
  """The .stablehlo file of a network, for all quantizers.

  Args:
    network: as `load` returns it.
    metadata: where the network comes from, for the file's record.

  Raises:
    UserError: the network cannot be compiled for a batch of any size.
  """
  flat = traverse_util.flatten_dict(network.variables)
  packed = {
    keys: _pack(np.asarray(value))
    if keys[0] == 'params'
    and network.precision.weight_path(keys[1:], value) is not None
    else np.asarray(value)
    for keys, value in flat.items()
  }

  def program(*inputs):
    variables = traverse_util.unflatten_dict(
      {
        keys: _unpack(value) if isinstance(value, dict) else jnp.asarray(value)
        for keys, value in packed.items()
      }
    )
    return network.replace(variables=variables)(*inputs)

  (batch,) = export.symbolic_shape('batch')
  arguments = [
    jax.ShapeDtypeStruct((batch, *shape), dtype)
    for shape, dtype in network.inputs or ()
  ]
  try:
    with _no_folders():
      exported = export.export(jax.jit(program), platforms=PLATFORMS)(
        *arguments
      )
  except Exception as error:  # Whatever a module of your own raises.
    raise UserError(
      f'{type(network.module).__name__} cannot be compiled for a batch of any '
      f'size ({str(error).splitlines()[0]}): export it as packed'
    ) from error
  content = bytes(exported.serialize())
  latent_dim, num_classes = latents_of(network) or (None, None)
  record = {
    'version': VERSION,
    'sha256': hashlib.sha256(content).hexdigest(),
    'inputs': [[list(x.shape), x.dtype] for x in network.inputs or ()],
    'latent_dim': latent_dim,
    'num_classes': num_classes,
    'image_shape': [int(n) for n in exported.out_avals[0].shape[1:]],
    'description': describe(network),
    'metadata': dict(metadata),
  }
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    for name, data in (
      (RECORD, json.dumps(record).encode()),
      (PROGRAM, content),
    ):
      # It has a fixed date: the same generator makes the same file.
      archive.writestr(zipfile.ZipInfo(name), data)
  return file.getvalue()


@contextlib.contextmanager
def _no_folders() -> Iterator[None]:
  """JAX notes the source of every instruction: here by the file's name alone.

  Where the files lie is nobody's business who is given the program.
  """
  option = 'jax_hlo_source_file_canonicalization_regex'
  before = getattr(jax.config, option)
  jax.config.update(option, '^.*/')  # What is removed.
  try:
    yield
  finally:
    jax.config.update(option, before)


def _pack(weight: np.ndarray) -> Any:
  """A weight's codes in as few bits as hold them; as it is where none do."""
  found = integer_codes(weight, 2**_MAX_BITS - 1)
  if found is not None:
    codes, offset = found.codes, int(found.codes.min(initial=0))
    # One bit has the codes −1 and 1, and no 0.
    step = max(1, int(np.gcd.reduce((codes - offset).reshape(-1))))
    codes = (codes - offset) // step
    values = {'scales': found.scales, 'offset': offset, 'step': step}
  else:
    levels, codes = np.unique(weight, return_inverse=True)
    if len(levels) > _MAX_LEVELS:
      return weight
    values = {'levels': levels}
  bits = max(1, int(codes.max(initial=0)).bit_length())
  if bits > _MAX_BITS:
    return weight
  return values | {
    'codes': pack(codes, bits), 'bits': bits, 'shape': weight.shape
  }  # fmt: skip


def _unpack(packed: dict[str, Any]) -> jax.Array:
  """The inverse, as instructions of the program."""
  bits, shape = packed['bits'], packed['shape']
  count = math.prod(shape)
  octets = jnp.asarray(packed['codes'])
  if bits in (1, 2, 4, 8):  # A byte has only whole codes.
    shifts = jnp.arange(0, 8, bits, dtype=jnp.uint8)
    codes = (octets[:, None] >> shifts) & jnp.uint8(2**bits - 1)
    codes = codes.reshape(-1)[:count].astype(jnp.int32)
  else:
    fields = jnp.unpackbits(octets, count=count * bits, bitorder='little')
    places = 2 ** jnp.arange(bits, dtype=jnp.int32)
    codes = fields.reshape(count, bits).astype(jnp.int32) @ places
  codes = codes.reshape(shape)
  if 'levels' in packed:
    return jnp.asarray(packed['levels'])[codes]
  codes = codes * packed['step'] + packed['offset']
  return codes.astype(jnp.float32) * packed['scales']
