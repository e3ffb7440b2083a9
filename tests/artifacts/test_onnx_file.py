"""ONNX files of strangers: read before any runtime sees them."""

import json

from example_generator import make_generator
import numpy as np
import onnx
from onnx import helper
import pytest

from qgan_jax import artifacts
from qgan_jax.artifacts.onnx_file import read_onnx, sealed
from qgan_jax.artifacts.onnx_graphs import onnx_model
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.errors import UserError


@pytest.fixture(scope='module')
def content():
  generator, _, _ = make_generator(num_classes=3, latent_dim=8, num=4)
  plan = make_plan(generator, integer=True)
  return onnx_model(plan, 'transposed', {'description': 'ours'})


def changed(content, change):
  """The file with another model or record, sealed again."""
  model = onnx.load_from_string(content)
  del model.metadata_props[1]
  record = json.loads(model.metadata_props[0].value)
  record = change(model, record) or record
  model.metadata_props[0].value = (
    record if isinstance(record, str) else json.dumps(record)
  )
  return sealed(model.SerializeToString())


def test_what_is_written_is_read(content):
  record = read_onnx(content)
  assert (record['latent_dim'], record['num_classes']) == (8, 3)
  assert changed(content, lambda model, record: None) == content
  model = onnx.load_from_string(content)
  assert [entry.key for entry in model.metadata_props] == ['qgan', 'sha256']


def test_every_change_is_found(content):
  rng = np.random.default_rng(0)
  for position in rng.integers(len(content), size=200):
    damaged = bytearray(content)
    damaged[position] ^= 1 << rng.integers(8)
    with pytest.raises(ValueError, match='checksum'):
      read_onnx(bytes(damaged))
  for size in (0, 1, 50, len(content) // 2, len(content) - 1):
    with pytest.raises(ValueError, match='checksum'):
      read_onnx(content[:size])


def add_node(*args, **kwargs):
  def change(model, record):
    model.graph.node.append(helper.make_node(*args, **kwargs))

  return change


def loop(model, record):
  body = helper.make_graph([], 'body', [], [])
  model.graph.node.append(helper.make_node('Identity', ['x'], ['y'], b=body))


def elsewhere(model, record):
  onnx.external_data_helper.set_external_data(
    model.graph.initializer[0], '/etc/passwd'
  )


def function(model, record):
  model.functions.append(
    helper.make_function('own', 'Tanh', [], [], [], model.opset_import)
  )


def fewer_classes(model, record):
  record['num_classes'] = 2


def says(**values):
  return lambda model, record: record | values


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (add_node('Loop', ['x'], ['y']), "'Loop' is no operation"),
    (add_node('Relu', ['x'], ['y'], domain='own'), 'a field 7'),
    (loop, 'a field 6'),
    (elsewhere, 'a field 1[34]'),
    (function, 'a field 25'),
    (says(num_classes=2), 'num_classes=2, and its graph has 3'),
    (says(num_classes=10**12), 'num_classes is 1000000000000'),
    (says(latent_dim=-1), 'latent_dim is -1'),
    (says(latent_dim='8'), "latent_dim is '8'"),
    (says(latent_dim=[8]), 'latent_dim is'),
    (says(description='a\nb'), 'description is no line'),
    (lambda *_: '[' * 10_000, 'not a whole ONNX file'),
    (lambda *_: '{}', "no 'latent_dim'"),
    (lambda *_: ' ', 'not a whole ONNX file'),
  ],
)  # fmt: skip
def test_what_is_crafted_is_one_sentence(tmp_path, content, change, message):
  path = tmp_path / 'x.onnx'
  path.write_bytes(changed(content, change))
  with pytest.raises(UserError, match=message) as caught:
    artifacts.open_drawer(path)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


def field(number, value):
  """A field of a message: its tag, and bytes or a number."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
  low = value & 127
  return bytes([low | 128]) + varint(value >> 7) if value >> 7 else bytes([low])


def with_graph(content, graph):
  """The file with these bytes instead of its graph."""
  model = onnx.load_from_string(content)
  del model.metadata_props[1]
  model.ClearField('graph')
  return sealed(model.SerializeToString() + field(7, graph))


def test_an_operation_has_one_name(content):
  """Of two values of one field, runtimes take the last."""
  node = field(4, b'Identity') + field(4, b'RandomNormalLike')
  crafted = with_graph(content, field(1, node))
  (read,) = onnx.load_from_string(crafted).graph.node
  assert read.op_type == 'RandomNormalLike'
  with pytest.raises(ValueError, match='field 4 is there twice'):
    read_onnx(crafted)


@pytest.mark.parametrize(
  'message',
  [
    field(8, b'c0') + field(8, b'c1'),
    field(9, b'3') + field(9, b'4'),
    field(2, 1) + field(2, 7),
  ],
)
def test_a_constant_has_one_value(content, message):
  with pytest.raises(ValueError, match='is there twice'):
    read_onnx(with_graph(content, field(5, message)))


def test_a_model_has_one_graph(content):
  with pytest.raises(ValueError, match='field 7 is there twice'):
    read_onnx(sealed(content[: -len(sealed(b''))] + field(7, b'')))


@pytest.mark.parametrize(
  'graph',
  [
    5,
    field(1, 5),
    field(5, 5),
    field(1, field(4, 2**62)),
    field(1, field(5, 5)),
    field(5, field(8, 2**62)),
    field(5, field(1, b'12')),
  ],
)
def test_a_number_is_no_text(content, graph):
  """As a size, it would be of memory to take."""
  with pytest.raises(ValueError, match=r'a field \d of kind \d is none'):
    read_onnx(with_graph(content, graph))


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(
  ('record', 'message'),
  [
    ({'latent_dim': 9}, r'latent_dim=9 .*takes float32\[8\] and int64'),
    ({'image_shape': [28, 28, 3]}, r'images of \[28, 28, 3\]'),
  ],
)
def test_what_a_file_says_is_compared(
  tmp_path, content, record, message, runtime
):
  path = tmp_path / 'x.onnx'
  path.write_bytes(changed(content, says(**record)))
  with pytest.raises(UserError, match=message):
    artifacts.open_drawer(path, runtime)


def test_a_graph_without_labels(tmp_path):
  generator, _, _ = make_generator(latent_dim=8, num=4)
  content = onnx_model(
    make_plan(generator, integer=True), 'gathered', {'description': 'ours'}
  )
  path = tmp_path / 'x.onnx'
  path.write_bytes(changed(content, says(num_classes=3)))
  with pytest.raises(UserError, match=r'num_classes=3, .*takes float32\[8\]\)'):
    artifacts.open_drawer(path)


def test_a_graph_that_fails_is_one_sentence(tmp_path, content):
  def wrong(model, record):
    for node in model.graph.node:
      if node.op_type == 'OneHot':
        model.graph.node.append(
          helper.make_node('Gather', ['latents', 'labels'], ['none'], axis=0)
        )
        return

  path = tmp_path / 'x.onnx'

  def twice(model, record):
    wrong(model, record)
    last = model.graph.node[-2]
    assert last.output[0] == 'images'
    picked = helper.make_node('ReduceSum', ['none'], ['sum'], keepdims=0)
    added = helper.make_node('Add', [last.input[0], 'sum'], ['images'])
    last.op_type, last.output[0] = 'Identity', 'before'
    model.graph.node.extend([picked, added])

  path.write_bytes(changed(content, twice))
  drawer = artifacts.open_drawer(path, 'onnxruntime')
  z = np.zeros((4, 8), np.float32)
  assert drawer.draw(z, np.zeros(4)).shape == (4, 28, 28, 1)
  # Of one latent, there is none of the index 2.
  with pytest.raises(UserError, match=r'x\.onnx does not run .*Gather'):
    drawer.draw(z[:1], np.full(1, 2))
