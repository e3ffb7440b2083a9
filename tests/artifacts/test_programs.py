"""Programs of strangers: what is let in, and what becomes of the rest."""

import dataclasses
import hashlib
import io
import json
import os
import zipfile

import jax
from jax import export, lax
from jax.extend.mlir import ir
from jax.interpreters import mlir
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import artifacts
from qgan_jax.artifacts import allowed_operations, program
from qgan_jax.artifacts.drawer import batches, part_of
from qgan_jax.errors import UserError

RECORD = {
  'version': 1,
  'inputs': [[[8], 'float32']],
  'latent_dim': 8,
  'num_classes': 0,
  'image_shape': [4, 2, 1],
  'description': 'crafted',
  'metadata': {},
}
CALLBACK = 'xla_ffi_python_cpu_callback'


def serialized(function):
  """What `jax.export` makes of a function of latents [batch, 8]."""
  (batch,) = export.symbolic_shape('batch')
  latents = jax.ShapeDtypeStruct((batch, 8), jnp.float32)
  exported = export.export(
    jax.jit(function),
    platforms=('cpu',),
    disabled_checks=[export.DisabledSafetyCheck.custom_call(CALLBACK)],
  )(latents)
  return bytes(exported.serialize())


def images(latents):
  return jnp.tanh(latents).reshape(-1, 4, 2, 1)


def write(path, content, **record):
  """A file with a right checksum."""
  record = RECORD | {'sha256': hashlib.sha256(content).hexdigest()} | record
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('generator.json', json.dumps(record))
    archive.writestr('program', content)
  return path


@pytest.fixture(scope='module')
def harmless():
  return serialized(images)


def draw(path):
  ((drawn, _),) = batches(artifacts.open_drawer(path), num=2, seed=0)
  return drawn


def test_what_is_drawn_is_what_the_program_gives(tmp_path, harmless):
  path = write(tmp_path / 'x.stablehlo', harmless)
  z = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
  drawn = artifacts.open_drawer(path).draw(z, None)
  np.testing.assert_allclose(drawn, np.tanh(z).reshape(5, 4, 2, 1), atol=1e-6)


@pytest.mark.parametrize(
  ('shape', 'part'),
  [
    ((28, 28, 1), 64),
    ((64, 64, 4), 64),
    ((64, 65, 3), 32),
    ((128, 128, 3), 16),
    ((256, 256, 3), 4),
    ((5000, 5000, 1), 1),
    ((0, 4, 1), 64),
    ((10,), 64),
  ],
)
def test_large_images_are_made_a_few_at_a_time(shape, part):
  assert part_of(shape) == part


@pytest.mark.parametrize('count', [1, 4, 20])
def test_all_parts_are_given_in_their_order(count):
  def large(latents):
    return jnp.broadcast_to(
      latents[:, :, None, None], (latents.shape[0], 8, 8192, 4)
    )

  assert part_of((8, 8192, 4)) == 4
  z = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
  drawn = program.Program('jax', serialized(large), seconds=100)(z)
  assert drawn.shape == (count, 8, 8192, 4)
  assert (drawn == z[:, :, None, None]).all()


def test_inputs_that_fail_are_not_sent(harmless):
  found = program.Program('jax', harmless, seconds=100)
  z = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
  with pytest.raises(ValueError, match='shorter than'):
    found(z + 1, z)
  np.testing.assert_allclose(
    found(z), np.tanh(z).reshape(5, 4, 2, 1), atol=1e-6
  )


def calls_python(latents):
  shape = jax.ShapeDtypeStruct(latents.shape, latents.dtype)
  call = jax.ffi.ffi_call(CALLBACK, shape)
  return images(call(latents, index=np.uint64(0)))


def test_a_program_that_calls_a_handler_is_refused(tmp_path):
  path = write(tmp_path / 'x.stablehlo', serialized(calls_python))
  with pytest.raises(UserError, match=f"calls '{CALLBACK}'") as caught:
    artifacts.open_drawer(path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'content', [b'', bytes(200), b'junk' * 50], ids=['empty', 'zeros', 'junk']
)
def test_what_is_no_program_is_one_sentence(tmp_path, content):
  path = write(tmp_path / 'x.stablehlo', content)
  with pytest.raises(UserError, match=r'x\.stablehlo cannot be read.*none of'):
    artifacts.open_drawer(path)


def test_a_damaged_module_is_one_sentence(tmp_path, harmless):
  start = harmless.index(b'ML\xefR')
  content = harmless[: start + 50] + bytes(100) + harmless[start + 150 :]
  path = write(tmp_path / 'x.stablehlo', content)
  with pytest.raises(UserError, match=r'x\.stablehlo cannot be read'):
    artifacts.open_drawer(path)


def test_an_endless_loop_runs_out_of_time(tmp_path):
  def endless(latents):
    return images(
      lax.while_loop(lambda x: x[0, 0] == x[0, 0], jnp.sin, latents)
    )

  found = program.Program('jax', serialized(endless), seconds=100)
  found.seconds = 0.5
  with pytest.raises(program.ProgramError, match=r'0\.5 seconds.*time_limit'):
    found(np.zeros((64, 8), np.float32))
  assert found._process.poll() is not None


def test_memory_is_bounded(tmp_path):
  def large(latents):
    many = jnp.broadcast_to(
      latents[:, :1, None], (*latents.shape[:1], 8, 2**22)
    )
    return images(lax.sort(many * jnp.sin(many))[:, :, 7])

  path = write(tmp_path / 'x.stablehlo', serialized(large))
  with pytest.raises(UserError, match='more than 512 MiB of memory'):
    draw(path)


def test_a_program_that_gives_more_than_it_says(tmp_path):
  """Its process waits until the rest is taken."""

  def more(latents):
    many = jnp.tile(latents[:, None], (1, 4096, 1))
    return jnp.concatenate([many.reshape(-1, 4, 2, 1)] * 8)

  path = write(tmp_path / 'x.stablehlo', serialized(more))
  with pytest.raises(UserError, match='no answer of at most 1048576 bytes'):
    draw(path)


def test_a_runtime_that_crashes_is_one_sentence(harmless):
  found = program.Program('jax', harmless, seconds=100)
  os.kill(found._process.pid, 11)
  with pytest.raises(program.ProgramError, match='crashed: Segmentation fault'):
    found(np.zeros((1, 8), np.float32))


def test_values_that_are_not_finite_are_refused(tmp_path):
  path = write(
    tmp_path / 'x.stablehlo', serialized(lambda z: images(jnp.log(z)))
  )
  with pytest.raises(UserError, match='draws values that are not finite'):
    draw(path)


DEEP = json.loads('[' * 900 + ']' * 900)


@pytest.mark.parametrize(
  ('record', 'message'),
  [
    ({'latent_dim': 7}, r'latent_dim=7 .* takes float32\[8\]'),
    ({'latent_dim': -1}, 'latent_dim is -1'),
    ({'latent_dim': 10**12}, 'latent_dim is 1000000000000'),
    ({'latent_dim': '8'}, "latent_dim is '8'"),
    ({'latent_dim': 8.0}, 'latent_dim is 8.0'),
    ({'latent_dim': True}, 'latent_dim is True'),
    ({'latent_dim': None}, 'is called with examples of shape'),
    ({'num_classes': 3}, r'num_classes=3, and its program takes float32\[8\]'),
    ({'num_classes': 'x'}, 'num_classes is'),
    ({'image_shape': [2, 4, 1]}, r'images of \[2, 4, 1\]'),
    ({'image_shape': [4, 2]}, r'images of \[4, 2\]'),
    ({'description': '\x1b[2J'}, 'description is no line'),
    ({'description': 3}, 'description is 3'),
    ({'version': 2}, 'version is 2'),
    ({'version': None}, 'version is null'),
    ({'sha256': '0'}, 'checksum'),
    ({'inputs': 3}, 'inputs is 3'),
    ({'metadata': DEEP}, 'metadata is'),
    ({'metadata': {'a': DEEP}}, 'nested more than'),
  ],
  ids=lambda x: str(x)[:40],
)  # fmt: skip
def test_what_a_file_says_is_checked(tmp_path, harmless, record, message):
  path = write(tmp_path / 'x.stablehlo', harmless, **record)
  with pytest.raises(UserError, match=message) as caught:
    artifacts.open_drawer(path)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


def test_text_that_is_no_record_is_one_sentence(tmp_path, harmless):
  path = tmp_path / 'x.stablehlo'
  for text in (b'', b'\xff', b'[]', b'{', b'{"latent_dim": 1e999}',
               b'[' * 10**5, b'{"latent_dim": ' + b'9' * 5000):  # fmt: skip
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('generator.json', text)
      archive.writestr('program', harmless)
    with pytest.raises(UserError, match='not a whole .stablehlo'):
      artifacts.open_drawer(path)


def module(text):
  return ir.Module.parse(text, mlir.make_ir_context())


def functions(calls):
  """A module of functions, each with calls of others, by name."""
  return module(
    '\n'.join(
      f'func.func @{name}(%x: tensor<f32>) -> tensor<f32> {{\n'
      + ''.join(
        f'%{i} = func.call @{callee}(%x) : (tensor<f32>) -> tensor<f32>\n'
        for i, callee in enumerate(callees)
      )
      + 'return %x : tensor<f32>\n}'
      for name, callees in calls.items()
    )
  )


def test_functions_that_call_each_other():
  allowed_operations.check_operations(functions({'main': ['a', 'a'], 'a': []}))
  for calls in ({'main': ['main']}, {'main': ['a'], 'a': ['main']}):
    with pytest.raises(ValueError, match='calls itself'):
      allowed_operations.check_operations(functions(calls))
  # 2⁴⁰ operations where each call is replaced by what it calls.
  doubled = {f'f{i}': [f'f{i + 1}'] * 2 for i in range(40)} | {'f40': []}
  with pytest.raises(ValueError, match='more than 100000 operations'):
    allowed_operations.check_operations(functions(doubled))


@pytest.mark.parametrize(
  ('operation', 'message'),
  [
    (
      '%0 = stablehlo.custom_call @shape_assertion(%x) '
      ': (tensor<f32>) -> tensor<f32>',
      "calls 'shape_assertion'",
    ),
    ('stablehlo.custom_call @Sharding(%x) : (tensor<f32>) -> ()', 'Sharding'),
    ('%0 = stablehlo.create_token : !stablehlo.token', 'create_token is no'),
    (
      '%0 = "stablehlo.if"(%p) ({ %t = stablehlo.create_token : '
      '!stablehlo.token\n stablehlo.return %x : tensor<f32> }, '
      '{ stablehlo.return %x : tensor<f32> }) : (tensor<i1>) -> tensor<f32>',
      'create_token is no',
    ),
  ],
)  # fmt: skip
def test_other_operations_are_refused(operation, message):
  text = f"""func.func @main(%x: tensor<f32>, %p: tensor<i1>) -> tensor<f32> {{
    {operation}
    return %x : tensor<f32>
  }}"""
  with pytest.raises(ValueError, match=message):
    allowed_operations.check_operations(module(text))


def test_a_tree_of_another_type_runs_no_code_of_its_own(tmp_path, harmless):
  """Python calls what a program has registered for such types of inputs."""
  trace = []

  @dataclasses.dataclass
  class Held:
    x: object

  jax.tree_util.register_pytree_node(
    Held, lambda held: ((held.x,), None), lambda _, x: Held(*x)
  )
  export.register_pytree_node_serialization(
    Held,
    serialized_name='held',
    serialize_auxdata=lambda _: b'-',
    deserialize_auxdata=trace.append,
  )
  (batch,) = export.symbolic_shape('batch')
  latents = jax.ShapeDtypeStruct((batch, 8), jnp.float32)
  exported = export.export(jax.jit(lambda held: images(held.x)))(Held(latents))
  path = write(tmp_path / 'x.stablehlo', bytes(exported.serialize()))
  with pytest.raises(UserError, match='none of'):
    artifacts.open_drawer(path)
  assert not trace


def test_a_zip_that_is_something_else(tmp_path, harmless):
  path = tmp_path / 'x.stablehlo'
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('program', harmless)
  path.write_bytes(file.getvalue())
  with pytest.raises(UserError, match='generator.json'):
    artifacts.open_drawer(path)
