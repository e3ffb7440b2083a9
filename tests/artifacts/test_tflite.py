"""LiteRT graphs against the network that was trained, in LiteRT."""

import hashlib
import sys

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from example_generator import make_generator
import flatbuffers
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import strange_generators

from qgan_jax import artifacts, models
from qgan_jax.artifacts import drawing
from qgan_jax.artifacts.formats import export, FORMATS
from qgan_jax.artifacts.inference import images
from qgan_jax.artifacts.layer import Layer
from qgan_jax.artifacts.levels import Codes, Steps
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.artifacts.tflite_builder import sealed
from qgan_jax.artifacts.tflite_file import check_operators, read_tflite
from qgan_jax.artifacts.tflite_graphs import tflite_model
from qgan_jax.artifacts.tflite_layers import (
  gives_bytes,
  in_bytes,
  in_sums,
  quantized,
)
from qgan_jax.artifacts.tflite_products import Products
from qgan_jax.errors import UserError

LAYERS = ('CONV_2D', 'TRANSPOSE_CONV', 'FULLY_CONNECTED')
PRODUCTS = (*LAYERS, 'BATCH_MATMUL')
# XNNPACK's kernels, as LiteRT takes them by itself, and its own.
XNNPACK = OpResolverType.AUTO
OWN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def draw(content, inputs, kernels=XNNPACK):
  """(images, one by one; the operators that ran)."""
  interpreter = Interpreter(
    model_content=content,
    num_threads=1,
    experimental_op_resolver_type=kernels,
  )
  interpreter.allocate_tensors()
  drawn = []
  for i in range(len(inputs[0])):
    for port, x in zip(interpreter.get_input_details(), inputs, strict=True):
      interpreter.set_tensor(port['index'], x[i : i + 1].astype(port['dtype']))
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    drawn.append(interpreter.get_tensor(output['index']))
  operators = [op['op_name'] for op in interpreter._get_ops_details()]
  return np.concatenate(drawn), operators


def products(content):
  """[(operator, dtypes of its inputs and output)] of those that multiply."""
  model = schema.ModelT.InitFromPackedBuf(content)
  (graph,) = model.subgraphs
  kinds = {v: k for k, v in vars(schema.BuiltinOperator).items()}
  types = {v: k for k, v in vars(schema.TensorType).items()}
  found = []
  for op in graph.operators:
    kind = kinds[model.operatorCodes[op.opcodeIndex].builtinCode]
    if kind in PRODUCTS:
      tensors = [graph.tensors[i] for i in (*op.inputs[-3:], *op.outputs)
                 if i >= 0]  # fmt: skip
      found.append((kind, {types[t.type] for t in tensors}))
  return found


def in_floats(content):
  return [kind for kind, types in products(content) if 'FLOAT32' in types]


def assert_alike(drawn, expected):
  assert expected.std() > 0.1
  assert drawn.shape == expected.shape
  off = 127.5 * np.abs(drawn - expected)
  assert (off <= 1).mean() >= 0.99, ((off <= 1).mean(), off.max())


@pytest.mark.parametrize(
  'network',
  [
    {'image_size': 28, 'norm': 'batch', 'num_classes': 10},
    {'image_size': 32, 'norm': 'none', 'image_channels': 3, 'bits': (4, 8)},
  ],
  ids=str,
)
def test_layers_before_a_quantizer_give_bytes(network):
  generator, *inputs = make_generator(**{'num': 16} | network)
  inputs = [x for x in inputs if x is not None]
  plan = make_plan(generator, integer=True, split=False)
  content = tflite_model(plan, {})
  *layers, last = products(content)
  assert [kind for kind, _ in layers] == (
    ['FULLY_CONNECTED'] + ['TRANSPOSE_CONV'] * (len(plan.layers) - 2)
  )
  # Codes, and biases of 32 bits, and where a transposed output goes.
  assert all(types == {'INT8', 'INT32'} for _, types in layers)
  # Only a tanh follows the last one: its sums are whole.
  assert last == ('BATCH_MATMUL', {'INT8', 'INT32'})
  expected = images(generator, *inputs)
  for kernels in (XNNPACK, OWN):
    drawn, operators = draw(content, inputs, kernels)
    assert_alike(drawn, expected)
    assert ('DELEGATE' in operators) == (kernels is XNNPACK)


@pytest.mark.parametrize(
  'network',
  [
    {'weights': 'lsq', 'num_classes': 3},
    # A wrong code of few would show.
    {'norm': 'batch', 'bits': (4, 4)},
  ],
  ids=str,
)
def test_elsewhere_sums_are_whole(network):
  generator, *inputs = make_generator(**{'num': 16} | network)
  inputs = [x for x in inputs if x is not None]
  plan = make_plan(generator, integer=True, split=False)
  content = tflite_model(plan, {})
  assert {kind for kind, _ in products(content)} == {'BATCH_MATMUL'}
  assert not in_floats(content)
  drawn, _ = draw(content, inputs)
  assert_alike(drawn, images(generator, *inputs))


@pytest.mark.parametrize('name', strange_generators.GENERATORS)
def test_modules_of_ones_own(name):
  network, inputs = strange_generators.make(name)
  expected = images(network, *inputs)
  content = tflite_model(make_plan(network, integer=True, split=False), {})
  drawn, _ = draw(content, inputs)
  assert_alike(drawn, expected)
  # Attention's two factors are both computed: no layer's.
  assert len(in_floats(content)) == (2 if name == 'attention' else 0)


@pytest.mark.parametrize('name', strange_generators.GENERATORS)
def test_float_graph(name):
  network, inputs = strange_generators.make(name, bits=(32, 32))
  content = tflite_model(make_plan(network, integer=False), {})
  for kernels in (XNNPACK, OWN):
    drawn, _ = draw(content, inputs, kernels)
    np.testing.assert_allclose(drawn, images(network, *inputs), atol=1e-4)


@pytest.mark.parametrize('integer', [True, False])
def test_patches_in_the_axis_of_examples(integer):
  network, inputs = strange_generators.make(
    strange_generators.Patches, num=4, bits=(8, 8 if integer else 32)
  )
  plan = make_plan(network, integer=integer, split=False)
  drawn, _ = draw(tflite_model(plan, {}), inputs)
  assert_alike(drawn, images(network, *inputs))


def test_a_residual_network_with_classes():
  network, inputs = strange_generators.make(
    lambda: models.make_generator(
      'resnet', image_size=32, channels=8, latent_dim=12, num_classes=3
    ),
    labels=True,
  )
  content = tflite_model(make_plan(network, integer=True, split=False), {})
  assert not in_floats(content)
  assert_alike(draw(content, inputs)[0], images(network, *inputs))


@pytest.mark.parametrize(
  ('family', 'size'), [('unet', (17, 17)), ('translator', (17, 12))]
)
def test_images_whose_bytes_have_no_0(family, size):
  network, given = strange_generators.from_images(family, size, 'instance')
  content = tflite_model(make_plan(network, integer=True, split=False), {})
  assert not in_floats(content)
  assert_alike(draw(content, [given])[0], images(network, given))


class Windows(nn.Module):
  """Convolutions of several kinds, each of which a ReLU follows."""

  @nn.compact
  def __call__(self, z):
    x = nn.relu(nn.Dense(5 * 6 * 4)(z).reshape(-1, 5, 6, 4))
    x = nn.relu(nn.ConvTranspose(6, (3, 3), (2, 2))(x))
    x = nn.relu(nn.ConvTranspose(8, (5, 4), (2, 1), padding='VALID')(x))
    x = nn.relu(nn.Conv(8, (3, 3), kernel_dilation=2, feature_group_count=4)(x))
    x = nn.relu(nn.Conv(6, (4, 3), (2, 3), padding=((2, 0), (1, 1)))(x))
    x = nn.relu(nn.ConvTranspose(4, (3, 3), kernel_dilation=(2, 2))(x))
    return jnp.tanh(nn.Conv(3, (3, 3))(x))


def test_windows_of_all_kinds_are_layers_of_bytes():
  network, inputs = strange_generators.make(Windows)
  content = tflite_model(make_plan(network, integer=True, split=False), {})
  *layers, _ = products(content)
  assert {kind for kind, _ in layers} == set(LAYERS)
  assert_alike(draw(content, inputs)[0], images(network, *inputs))


def a_layer(levels, least):
  """(one with weights from `least` on, inputs beyond its levels, outputs)."""
  rng = np.random.default_rng(0)
  codes = rng.choice([least, -127, 1, 127], (64, 9))
  zero_point = levels // 3
  steps = Steps(0.5, zero_point, levels)
  given = rng.choice([-9, 0, 1, levels - 1, levels + 9], (3, 64))
  values = (0.5 * (given - zero_point)).astype(np.float32)
  scales = np.float32([0.25, -2.0, 1.0] * 3)
  bias = np.arange(9, dtype=np.float32)
  layer = Layer('all', codes * scales, Codes(codes, scales), steps, bias,
                columns=(9,))  # fmt: skip
  rounded = 0.5 * (np.clip(given, 0, levels - 1) - zero_point)
  return layer, values, rounded @ (codes * scales) + bias


@pytest.mark.parametrize('levels', [256, 255, 16])
def test_sums_of_the_largest_codes_are_exact(levels):
  layer, values, expected = a_layer(levels, -128)
  b = Products()
  x = quantized(b, b.input('latents', (1, 64), np.float32), layer.steps)
  drawn, _ = draw(b.model(in_sums(b, x, layer), {}), [values])
  np.testing.assert_allclose(drawn, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('levels', 'zero_point'), [(256, 120), (255, 127), (256, 0), (128, 0)]
)
def test_bytes_are_the_codes_of_a_quantizer(levels, zero_point):
  layer, values, exact = a_layer(256, -127)
  steps = Steps(float(np.abs(exact).max() / 200), zero_point, levels)
  assert gives_bytes(layer, steps)
  b = Products()
  x = quantized(b, b.input('latents', (1, 64), np.float32), layer.steps)
  y = in_bytes(b, x, layer, steps)
  content = b.model(b.op('DEQUANTIZE', [y], y.shape), {})
  codes = np.clip(np.rint(exact / steps.scale) + zero_point, 0, levels - 1)
  for kernels in (XNNPACK, OWN):
    drawn, _ = draw(content, [values], kernels)
    np.testing.assert_allclose(
      drawn, steps.scale * (codes - zero_point), atol=1e-3 * steps.scale
    )
  # Weights of −128, few levels, levels beside 0: not to be rounded to bytes.
  assert not gives_bytes(a_layer(256, -128)[0], steps)
  assert not gives_bytes(layer, Steps(1.0, 0, 16))
  assert not gives_bytes(layer, Steps(1.0, 128, 256, 0.5))


def test_what_it_cannot_hold_is_refused_by_its_place():
  def refused(compute, message):
    class Own(nn.Module):
      @nn.compact
      def __call__(self, z):
        return compute(nn.Dense(12, name='first')(z).reshape(-1, 2, 2, 3))

    network, _ = strange_generators.make(Own)
    with pytest.raises(UserError, match=message):
      FORMATS['tflite']['.tflite'](artifacts.Artifact(network, {}))

  refused(jnp.sort, 'Own has the operation sort, which this cannot .* LiteRT')
  refused(
    lambda x: nn.ConvTranspose(2, (1, 1), (2, 2))(nn.relu(x)),
    'ConvTranspose_0 is a transposed convolution',
  )
  refused(
    lambda x: x + jax.random.normal(jax.random.key(0), (2, 2, 3)),
    'cannot be written in LiteRT|operation random',
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  generator, *_ = make_generator(norm='batch', num_classes=3)
  path = tmp_path_factory.mktemp('exported')
  metadata = {'class_names': ['ant', 'bee', '0']}
  artifacts.save(path / 'generator.qgan', generator, metadata=metadata)
  export(path / 'generator.qgan', ['tflite', 'tflite-float'], path)
  return path


def test_a_drawer_draws_from_the_file_in_its_own_process(folder):
  _, latents, labels = make_generator(norm='batch', num_classes=3)
  expected = artifacts.open_drawer(folder / 'generator.qgan')
  expected = expected.draw(latents, labels)
  for name in ('generator.tflite', 'generator-float.tflite'):
    drawer = drawing.open_drawer(folder / name)
    assert (drawer.runtime, drawer.latent_dim) == ('litert', 16)
    assert drawer.class_names == ('ant', 'bee', '0')
    drawn = drawer.draw(latents, labels)
    off = 127.5 * np.abs(drawn - expected)
    if name == 'generator.tflite':
      assert 'activations 8-bit' in drawer.description
      assert_alike(drawn, expected)
    else:
      # Its activations are not rounded: another network, though not far.
      assert 'float32' in drawer.description
      assert 0.1 < off.mean() < 10
  record = read_tflite((folder / 'generator.tflite').read_bytes())
  assert record['inputs'] == [[[16], 'float32'], [[], 'int32']]
  assert record['image_shape'] == [28, 28, 1]


def test_damage_and_other_operators_are_said(folder, tmp_path):
  content = (folder / 'generator.tflite').read_bytes()
  path = tmp_path / 'x.tflite'
  turned = bytearray(content)
  turned[len(content) // 2] ^= 1
  for damaged in (turned, content[:-1], content[:40]):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match='not a whole LiteRT file .*checksum'):
      drawing.open_drawer(path)
  # A stranger computes the checksum anew.
  for data in (
    content[:8],
    content[:4] + bytes(400),
    b'\xff' * 4 + content[4:99],
  ):
    path.write_bytes(sealed(data[:4] + b'TFL3' + data[8:]))
    with pytest.raises(UserError, match='x.tflite'):
      drawing.open_drawer(path)
  model = schema.ModelT.InitFromPackedBuf(content)
  code = model.operatorCodes[0]
  code.builtinCode = schema.BuiltinOperator.CUSTOM
  code.deprecatedBuiltinCode, code.customCode = code.builtinCode, 'own'
  writer = flatbuffers.Builder(1024)
  writer.Finish(model.Pack(writer), b'TFL3')
  changed = sealed(bytes(writer.Output()))
  assert hashlib.sha256(changed[:-32]).digest() == changed[-32:]
  with pytest.raises(ValueError, match='operator 32 is none'):
    check_operators(changed)
  path.write_bytes(changed)
  with pytest.raises(UserError, match='operator 32'):
    drawing.open_drawer(path)


@pytest.mark.parametrize('name', ['tflite', 'tflite-float'])
def test_a_missing_package_is_said_before_anything_is_read(
  name, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'ai_edge_litert.schema_py_generated', None)
  with pytest.raises(UserError, match=r'ai_edge_litert is not .*\[tflite\]'):
    export(tmp_path / 'none.qgan', ['packed', name], tmp_path)
