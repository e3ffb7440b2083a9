"""Networks of one's own in files: what holds them, what draws from them."""

import json
import zipfile

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from own_modules import (
  Attending,
  Filter,
  IMAGES,
  LABELS,
  LATENTS,
  make_attending,
  Outer,
  quantized,
)
import pytest
from runtimes import run_onnxruntime, run_openvino
from test_packed import assert_trees_equal, read, rewrite

from qgan_jax import artifacts, export
from qgan_jax.artifacts import formats, inference, sinks
from qgan_jax.artifacts.sinks import sample
from qgan_jax.errors import UserError
from qgan_jax.post_training import quantize
from qgan_jax.precision import Bits, Precision, Quantized, QuantizerSpec


class Seeded(nn.Module):
  """Has a number that is no size."""

  seed: int = 0

  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(x) + self.seed % 7


class Normed(nn.Module):
  """Has variables with slashes in their names: 'Dense_0/kernel/u'."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.SpectralNorm(nn.Dense(8))(x, update_stats=train)
    return nn.WeightNorm(nn.Dense(4))(x)


class Holding(nn.Module):
  """Has what JSON does not hold, and no default."""

  layer: nn.Module

  @nn.compact
  def __call__(self, x):
    return self.layer(x)


@pytest.fixture(scope='module')
def attending():
  return make_attending()


@pytest.mark.parametrize(
  ('module', 'inputs'),
  [
    (Outer.Conditional(), (LATENTS, LABELS)),
    (Filter(), (IMAGES,)),
    (Normed(), (LATENTS,)),
    (nn.Sequential((nn.Dense(4), nn.relu, nn.Dense(2))), (LATENTS,)),
  ],
  ids=lambda x: type(x).__name__,
)
def test_what_is_read_is_what_was_saved(tmp_path, module, inputs):
  network = quantized(module, *inputs)
  artifacts.save(tmp_path / 'g.qgan', network, metadata={'step': 3})
  given = module if isinstance(module, nn.Sequential) else None
  loaded, metadata = artifacts.read(tmp_path / 'g.qgan', given)
  assert metadata == {'step': 3}
  assert (loaded.module, loaded.inputs) == (module, network.inputs)
  run = jax.jit(lambda network, args: network(*args))
  np.testing.assert_allclose(
    run(loaded, inputs), run(network, inputs), atol=1e-6
  )
  np.testing.assert_allclose(
    artifacts.images(loaded, *inputs), run(network, inputs), atol=1e-5
  )


def test_weights_of_attention_and_of_no_layer_are_codes(tmp_path, attending):
  path = tmp_path / 'g.qgan'
  sizes = artifacts.save(path, attending)
  loaded = artifacts.load(path)
  assert loaded.module == Attending(widths=(8,))
  trained = jax.jit(attending.weights)(attending.variables['params'])
  assert_trees_equal({'params': trained}, loaded.variables)
  header, tensors = read(path)
  assert header['model'] == f'{Attending.__module__}:Attending'
  assert header['model_kwargs'] == {'size': 4, 'widths': [8]}
  assert header['inputs'] == [[[5], 'float32']]
  bits = {name: record[0] for name, record in header['codes'].items()}
  assert bits['params/codes'] <= 3 and bits['params/project/kernel'] <= 2
  assert 2 < bits['params/attend/query/kernel'] <= 4
  query = tensors['quantizer/params/attend/query/kernel/scale']
  assert query.shape == (1, 2, 4)
  assert sizes.artifact_bytes < 0.6 * sizes.float_bytes
  # Used as they are: to quantize them again might move them.
  assert (
    loaded.weights(loaded.variables['params']) is (loaded.variables['params'])
  )


NAMES = ('uniform', 'affine', 'lsq_plus', 'apot', 'ternary', 'xnor')
NAMES += ('codebook', 'mxfp4', 'logarithmic', 'dorefa')


@pytest.mark.parametrize('sparsity', [None, 0.7])
@pytest.mark.parametrize('name', NAMES)
def test_what_was_read_can_be_saved_again(tmp_path, name, sparsity):
  module = nn.Dense(24)
  network = Quantized(
    module,
    Precision(QuantizerSpec(name, -1)),
    Bits(jnp.float32(4), jnp.float32(32))._replace(
      sparsity=None if sparsity is None else jnp.float32(sparsity)
    ),
    jax.jit(module.init)(jax.random.key(0), np.zeros((1, 64))),
  )
  first, second = tmp_path / '1.qgan', tmp_path / '2.qgan'
  inputs = jax.ShapeDtypeStruct((1, 64), jnp.float32)
  sizes = artifacts.save(first, network, inputs=inputs)
  loaded, metadata = artifacts.read(first, module)
  # As the training step computes them: compiled, with the bits traced.
  trained = jax.jit(network.precision.quantize_weights)(
    network.variables['params'], network.bits
  )
  assert_trees_equal({'params': trained}, loaded.variables)
  again = artifacts.save(second, loaded, metadata=metadata)
  assert_trees_equal(loaded.variables, artifacts.load(second, module).variables)
  if name == 'dorefa':  # Codes of what it gives are not those it came from.
    assert again.artifact_bytes > sizes.artifact_bytes
  else:
    assert first.read_bytes() == second.read_bytes()


def test_bound_modules_that_quantize_returned_are_saved(tmp_path):
  module = Attending()
  variables = jax.jit(module.init)(jax.random.key(0), LATENTS)
  bound, other = quantize(
    module.bind(variables), nn.Dense(2).bind({'params': {}}), bit_width=4,
    generator_inputs=LATENTS,
  )  # fmt: skip
  artifacts.save(tmp_path / 'g.qgan', bound)
  np.testing.assert_allclose(
    artifacts.load(tmp_path / 'g.qgan')(LATENTS), bound(LATENTS), atol=1e-5
  )
  for network, message in ((other, 'nobody says what Dense is called with'),
                           (module.bind(variables), 'a Attending cannot be'),
                           (module, 'give what quantize returned'),
                           (variables, 'a dict cannot be saved')):  # fmt: skip
    with pytest.raises(ValueError, match=message):
      artifacts.save(tmp_path / 'x.qgan', network)


def test_inputs_that_could_not_be_read_are_not_saved(tmp_path):
  class Widening(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2)(x.astype(jnp.float32))

  network = quantized(Widening(), LATENTS)
  narrow = jax.ShapeDtypeStruct((1, 5), jnp.float8_e4m3fn)
  with pytest.raises(ValueError, match='an input of .float8_e4m3fn'):
    artifacts.save(tmp_path / 'g.qgan', network, inputs=narrow)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('metadata', 'message'),
  [
    ({'fid': float('nan')}, 'metadata.fid is nan, and should be a finite'),
    ({'where': 'caf\udce9'}, 'metadata.where is .* of valid characters'),
    ({'history': list(range(200_000))}, 'at most 1048576 are read'),
  ],
)
def test_metadata_that_could_not_be_read_are_not_saved(
  tmp_path, attending, metadata, message
):
  path = tmp_path / 'g.qgan'
  with pytest.raises(UserError, match=f'g.qgan cannot be written: .*{message}'):
    artifacts.save(path, attending, metadata=metadata)
  assert not path.exists()


def test_metadata_of_old_files_are_not_exported_unread(tmp_path, attending):
  path = tmp_path / 'g.qgan'
  artifacts.save(path, attending)
  rewrite(path, lambda header, _: header['metadata'].update(fid=float('nan')))
  assert np.isnan(artifacts.read(path).metadata['fid'])
  with pytest.raises(UserError, match='metadata.fid is nan'):
    formats.export(path, ['stablehlo'], tmp_path)


def test_types_of_variables_come_back(tmp_path):
  class Narrow(nn.Module):
    @nn.compact
    def __call__(self, x):
      count = self.variable('state', 'count', lambda: jnp.zeros((), jnp.int32))
      x = nn.Dense(3, param_dtype=jnp.bfloat16)(x)
      return x * (1 + count.value)

  variables = Narrow().init(jax.random.key(0), LATENTS)
  variables['state']['count'] += 7
  network = Quantized(
    Narrow(), Precision(), Bits(jnp.float32(32), jnp.float32(32)), variables
  )
  artifacts.save(tmp_path / 'g.qgan', network, inputs=LATENTS)
  loaded = artifacts.load(tmp_path / 'g.qgan', Narrow())
  assert loaded.variables['state']['count'].dtype == jnp.int32
  assert loaded.variables['params']['Dense_0']['bias'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(loaded(LATENTS), network(LATENTS))
  variables['state']['count'] += 2**24  # An odd number past what is exact.
  with pytest.raises(ValueError, match='count is int32, which float32 does'):
    artifacts.save(tmp_path / 'g.qgan', network, inputs=LATENTS)


def test_what_a_file_cannot_name_is_given(tmp_path):
  class Local(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2)(x)

  for module, message in (
    (Local(), 'Local.* import .test_own_modules. first .*or give the network'),
    (Holding(nn.Dense(2)), 'not hold all attributes of its network, a .*:Hold'),
    (Attending(activation=nn.tanh), 'not hold all attributes'),
    (Seeded(20240101), 'not hold all attributes'),
  ):
    path = tmp_path / 'g.qgan'
    network = quantized(module, LATENTS)
    artifacts.save(path, network)
    with pytest.raises(UserError, match=message) as caught:
      artifacts.load(path)
    assert '\n' not in str(caught.value) and str(path) in str(caught.value)
    loaded = artifacts.load(path, module=module)
    np.testing.assert_allclose(loaded(LATENTS), network(LATENTS), atol=1e-5)


def test_another_module_than_the_files_is_refused(tmp_path, attending):
  path = tmp_path / 'g.qgan'
  artifacts.save(path, attending)
  same = artifacts.load(path, module=Attending(widths=(8,)))
  assert_trees_equal(same.variables, artifacts.load(path).variables)
  for module, message in (
    (Attending(widths=(4,)), 'key/bias has the shape .2, 4., and in Attending'),
    (nn.Dense(3), 'key.bias has the shape .2, 4., and in Dense None'),
    (Filter(), r'Filter cannot be called with \[1, 5\]'),
  ):
    with pytest.raises(UserError, match=f'does not fit together.*{message}'):
      artifacts.load(path, module=module)
  for module in ('Attending', Attending, Filter().bind({'params': {}})):
    with pytest.raises(ValueError, match='a Linen module that is not bound'):
      artifacts.load(path, module=module)


def test_images_refuse_other_inputs(tmp_path):
  network = quantized(Outer.Conditional(), LATENTS, LABELS)
  for inputs, message in (
    ((LATENTS,), r'shape \[40, 5\]: \[N, 5\], \[N\] is needed'),
    ((LATENTS, LABELS[:3]), 'is needed'),
    ((LATENTS, LABELS[:, None]), 'is needed'),
    ((LATENTS[:0], LABELS[:0]), 'is needed'),
    ((LATENTS, LABELS + 1), 'labels from 1 to 3: of 3 classes'),
    ((LATENTS, LABELS - 1), 'labels from -1 to 1: of 3 classes'),
  ):
    with pytest.raises(ValueError, match=message):
      artifacts.images(network, *inputs)


def test_own_networks_are_drawn_from(tmp_path, attending):
  """By `sample`, and without this package by JAX's own program."""
  network = quantized(Outer.Conditional(), LATENTS, LABELS)
  for name, one, inputs in (
    ('a', attending, (LATENTS,)),
    ('c', network, (LATENTS, LABELS)),
  ):
    path = tmp_path / f'{name}.qgan'
    artifacts.save(path, one)
    (program,) = formats.export(path, ['stablehlo'], tmp_path)
    drawn = []
    for file in (path, program):
      sample(
        artifact=str(file), num=70, out=f'{tmp_path}/x.npz', seed=3, label=None
      )
      with np.load(tmp_path / 'x.npz') as found:
        drawn.append(found['images'].astype(int))
    assert drawn[0].shape == (70, 4, 4, 1) and drawn[0].std() > 5
    assert (np.abs(drawn[0] - drawn[1]) <= 1).mean() > 0.99
    with zipfile.ZipFile(program) as file:
      exported = jax.export.deserialize(bytearray(file.read('program')))
      record = json.loads(file.read('generator.json'))
    assert record['latent_dim'] == 5
    assert record['num_classes'] == (3 if name == 'c' else 0)
    np.testing.assert_allclose(
      exported.call(*inputs), inference.run(artifacts.load(path), *inputs),
      atol=0.1,
    )  # fmt: skip
    if name == 'a':
      # A weight of one's own is multiplied with what no quantizer sees.
      with pytest.raises(UserError, match='codes is multiplied with is not'):
        formats.export(path, ['onnx'], tmp_path)
      graphs = formats.export(path, ['onnx-float'], tmp_path)
      expected = one.with_float_activations()(*inputs)
    else:
      graphs = formats.export(path, ['onnx'], tmp_path)
      expected = one(*inputs)
    for graph in graphs:
      feeds = {'latents': np.asarray(LATENTS)}
      if name == 'c':
        feeds['labels'] = np.asarray(LABELS, np.int64)
      # Each in the runtime that it is for.
      openvino = 'openvino' in graph.name
      run = run_openvino if openvino else run_onnxruntime
      drawn, _ = run(graph.read_bytes(), feeds, tmp_path)
      assert (127.5 * np.abs(drawn - expected) <= 1).mean() > 0.99


class Two(nn.Module):
  """Has a second input, which is no label."""

  @nn.compact
  def __call__(self, z, y):
    return nn.Dense(16)(z).reshape(-1, 4, 4, 1) + y[:, None, None, None]


def test_what_is_not_drawn_from_latents_says_so(tmp_path):
  path = tmp_path / 'two.qgan'
  artifacts.save(path, quantized(Two(), LATENTS, LABELS))
  for file in (path, *formats.export(path, ['onnx', 'stablehlo'], tmp_path)):
    with pytest.raises(UserError, match=r'shape \[5\] and \[\], and images'):
      artifacts.open_drawer(file)
  path = tmp_path / 'filter.qgan'
  artifacts.save(path, quantized(Filter(), IMAGES))
  (program,) = formats.export(path, ['stablehlo'], tmp_path)
  for file in (path, program):
    with pytest.raises(UserError, match='makes images of images'):
      sinks.sample(
        artifact=str(file),
        num=1,
        out=str(tmp_path / 'x.png'),
        seed=0,
        label=None,
      )
  assert artifacts.images(artifacts.load(path), IMAGES).shape == IMAGES.shape


class Beside(nn.Module):
  """Returns something beside its images."""

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(16)(z).reshape(-1, 4, 4, 1)
    return x, x.mean((1, 2, 3))


def test_a_program_of_several_arrays_is_not_drawn_from(tmp_path):
  path = tmp_path / 'beside.qgan'
  artifacts.save(path, quantized(Beside(), LATENTS))
  (program,) = formats.export(path, ['stablehlo'], tmp_path)
  for file, says in ((path, 'gives .* and'), (program, 'gives 2 arrays, not')):
    with pytest.raises(UserError, match=says):
      artifacts.open_drawer(file)


class Channels(nn.Module):
  """Latents to images of any number of channels."""

  channels: int

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(16 * self.channels)(z)
    return jnp.tanh(x).reshape(-1, 4, 4, self.channels)


@pytest.mark.parametrize(
  ('module', 'shape'),
  [(nn.Dense(16), r'\[16\]'), (Channels(2), r'\[4, 4, 2\]')],
)
def test_what_gives_no_images_is_not_drawn_from(
  tmp_path, capsys, module, shape
):
  path = tmp_path / 'x.qgan'
  artifacts.save(path, quantized(module, LATENTS))
  export.main([f'--artifact={path}', '--format=onnx,stablehlo'])
  files = sorted(tmp_path.iterdir())
  assert len(files) == 4
  told = capsys.readouterr().out
  assert told.count('to be called with what its network takes') == 3
  for file in files:
    with pytest.raises(UserError, match=f'gives {shape} for each example'):
      artifacts.open_drawer(file)
  with pytest.raises(UserError, match=f'gives {shape} for each example'):
    formats.export(path, ['web'], tmp_path)
