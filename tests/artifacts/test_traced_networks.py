"""ONNX graphs of networks that the exporter has never heard of."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtimes import (
  IN_INTEGERS,
  in_integers,
  run_onnxruntime,
  run_openvino,
  SPLITS,
)
import strange_generators

from qgan_jax import artifacts, models
from qgan_jax.artifacts.formats import FORMATS
from qgan_jax.artifacts.inference import images
from qgan_jax.artifacts.onnx_graphs import onnx_model
from qgan_jax.artifacts.plan import make_plan
from qgan_jax.errors import UserError
from qgan_jax.precision import Precision, QuantizerSpec

# Of attention, whose factors are both computed: no layer's.
FLOAT_PRODUCTS = {'attention': 2}


def feeds(inputs):
  names = ('latents', 'labels')
  types = (np.float32, np.int64)
  return {
    name: x.astype(t) for name, t, x in zip(names, types, inputs, strict=False)
  }


@pytest.mark.parametrize(
  'settings',
  [
    {'num_classes': strange_generators.CLASSES},
    {'attention': True, 'image_size': 16, 'norm': 'group'},
  ],
  ids=str,
)
def test_residual_networks_of_the_package(settings, tmp_path):
  settings = {'image_size': 32, 'channels': 8, 'latent_dim': 12} | settings
  network, inputs = strange_generators.make(
    lambda: models.make_generator('resnet', **settings),
    labels='num_classes' in settings,
  )
  expected = images(network, *inputs)
  plan = make_plan(network, integer=True)
  for form, run in IN_INTEGERS:
    drawn, executed = run(onnx_model(plan, form, {}), feeds(inputs), tmp_path)
    assert (127.5 * np.abs(drawn - expected) <= 1).mean() >= 0.99
    floats = [n for n in executed if 'Integer' not in n and not in_integers(n)]
    # Attention's products: of bytes in ONNX Runtime, of values in OpenVINO.
    if 'attention' in settings:
      assert len([n for n in floats if not n.startswith('QLinear')]) <= 2
    else:
      assert not floats


@functools.cache
def from_images(family, size, norm, bits=(8, 8)):
  """(a network that is given bytes, its images)."""
  return strange_generators.from_images(family, size, norm, bits=bits)


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize(
  ('family', 'size', 'norm'),
  [
    ('unet', (32, 32), 'instance'),
    ('unet', (17, 17), 'batch'),
    ('translator', (16, 16), 'instance'),
    ('translator', (17, 12), 'batch'),
  ],
)
def test_networks_from_images_to_images(family, size, norm, split, tmp_path):
  """Skips and sums, norms at run time, and an input without a 0."""
  network, given = from_images(family, size, norm)
  expected = images(network, given)
  assert expected.std() > 0.1
  plan = make_plan(network, integer=True, split=split)
  for form, run in IN_INTEGERS:
    model = onnx_model(plan, form, {})
    drawn, executed = run(model, {'input_images': given}, tmp_path)
    off = 127.5 * np.abs(drawn - expected)
    alike = (off <= 1).mean((1, 2, 3)) >= 0.99
    # A norm's sums depend on the processor in their last bit, and so does how a
    # tie is rounded: in at most one image, of which all pixels see it.
    assert alike.sum() >= len(alike) - (norm == 'instance')
    assert off.max() < 10
    floats = [n for n in executed if 'Integer' not in n and not in_integers(n)]
    assert len(executed) >= 6 and not floats


@pytest.mark.parametrize(
  ('family', 'size'), [('unet', (32, 32)), ('translator', (17, 12))]
)
def test_networks_from_images_in_float(family, size, tmp_path):
  network, given = from_images(family, size, 'instance', (32, 32))
  model = onnx_model(make_plan(network, integer=False), 'transposed', {})
  for run in (run_onnxruntime, run_openvino):
    drawn, _ = run(model, {'input_images': given}, tmp_path)
    np.testing.assert_allclose(drawn, images(network, given), atol=1e-5)


class Strided(nn.Module):
  """Bytes into convolutions of several kinds, and into a dense layer."""

  @nn.compact
  def __call__(self, x):
    up = nn.ConvTranspose(2, (4, 4), (2, 2))(x)
    wide = nn.Conv(4, (3, 3), kernel_dilation=2, feature_group_count=2)(x)
    wide = jnp.repeat(jnp.repeat(wide, 2, 1), 2, 2)
    dense = nn.Dense(6)(x.reshape(x.shape[0], -1))[:, None, None]
    dense = jnp.broadcast_to(dense, (*up.shape[:3], 6))
    return jnp.tanh(jnp.concatenate([up, wide, dense], -1) / 4)


def test_an_input_without_a_0_is_padded_with_zeros(tmp_path):
  rng = np.random.default_rng(0)
  given = (rng.integers(0, 256, (5, 6, 7, 2)) / 127.5 - 1).astype(np.float32)
  pixels = QuantizerSpec('pixels')
  precision = Precision(QuantizerSpec('uniform', -1), pixels)
  network, _ = strange_generators.make(
    Strided, inputs=[given], precision=precision
  )
  plan = make_plan(network, integer=True)
  for form, run in IN_INTEGERS:
    model = onnx_model(plan, form, {})
    drawn, _ = run(model, {'input_images': given}, tmp_path)
    np.testing.assert_allclose(drawn, images(network, given), atol=1e-4)


@pytest.mark.parametrize('name', strange_generators.GENERATORS)
def test_float_graph(name, tmp_path):
  network, inputs = strange_generators.make(name, bits=(32, 32))
  expected = images(network, *inputs)
  assert expected.std() > 0.1
  plan = make_plan(network, integer=False)
  for form in ('transposed', 'gathered'):
    for run in (run_onnxruntime, run_openvino):
      drawn, _ = run(onnx_model(plan, form, {}), feeds(inputs), tmp_path)
      np.testing.assert_allclose(drawn, expected, atol=5e-5)


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('name', strange_generators.GENERATORS)
def test_integer_graphs(name, split, tmp_path):
  network, inputs = strange_generators.make(name)
  expected = images(network, *inputs)
  plan = make_plan(network, integer=True, split=split)
  assert len(plan.layers) == len(plan.steps)
  for form, run in IN_INTEGERS:
    drawn, executed = run(onnx_model(plan, form, {}), feeds(inputs), tmp_path)
    off = 127.5 * np.abs(drawn - expected)
    assert (off <= 1).mean() >= 0.99
    floats = [n for n in executed if 'Integer' not in n and not in_integers(n)]
    assert len(floats) <= FLOAT_PRODUCTS.get(name, 0), executed


@pytest.mark.parametrize(
  'module',
  [
    strange_generators.Learned,
    strange_generators.Patches,
    strange_generators.Unbiased,
  ],
)
def test_layers_of_constants_of_patches_and_without_a_bias(module, tmp_path):
  network, inputs = strange_generators.make(module, num=6)
  expected = images(network, *inputs)
  assert expected.std() > 0.1
  plan = make_plan(network, integer=True)
  for form, run in IN_INTEGERS:
    drawn, _ = run(onnx_model(plan, form, {}), feeds(inputs), tmp_path)
    assert (127.5 * np.abs(drawn - expected) <= 1).mean() >= 0.99


@pytest.mark.parametrize('integer', [True, False])
def test_networks_that_compute_in_bfloat16(integer, tmp_path):
  class Half(nn.Module):
    @nn.compact
    def __call__(self, z):
      x = nn.Dense(2 * 2 * 8, dtype=jnp.bfloat16)(z).reshape(-1, 2, 2, 8)
      x = nn.GroupNorm(4, dtype=jnp.bfloat16)(x)
      x = nn.ConvTranspose(3, (4, 4), (2, 2), dtype=jnp.bfloat16)(nn.relu(x))
      gain = self.param('gain', nn.initializers.ones, (3,), jnp.float32)
      x = x * (1 + gain.astype(jnp.bfloat16) * 0.5)
      return jnp.tanh(x).astype(jnp.float32)

  network, inputs = strange_generators.make(
    Half, bits=(8, 8) if integer else (8, 32)
  )
  expected = images(network, *inputs)
  model = onnx_model(make_plan(network, integer=integer), 'gathered', {})
  drawn, _ = run_onnxruntime(model, feeds(inputs), tmp_path)
  # Of bfloat16, which has 8 digits, and of what it rounds to other codes.
  assert np.abs(drawn - expected).max() < 0.1


def test_what_a_graph_cannot_hold_is_refused_by_its_place():
  class Sorted(nn.Module):
    @nn.compact
    def __call__(self, z):
      x = nn.Dense(8, name='first')(z)
      return jnp.sort(x).reshape(-1, 2, 2, 2)

  network, _ = strange_generators.make(Sorted)
  plan = make_plan(network, integer=True)
  with pytest.raises(UserError, match='Sorted.* operation sort'):
    onnx_model(plan, 'gathered', {})


def test_a_weight_of_ones_own_is_named():
  class Own(nn.Module):
    @nn.compact
    def __call__(self, z):
      x = nn.Dense(8, name='first')(z)
      table = self.param('table', nn.initializers.normal(1.0), (8, 12))
      return jnp.einsum('bi,io->bo', x, table).reshape(-1, 2, 2, 3)

  network, _ = strange_generators.make(Own)
  with pytest.raises(UserError, match=r'weights of table \(float\) are not'):
    make_plan(network, integer=True)
  quantized = Precision(
    QuantizerSpec('uniform', -1),
    QuantizerSpec('affine'),
    exceptions=(('weights', 'table', QuantizerSpec('uniform', -1)),),
  )
  network, _ = strange_generators.make(Own, precision=quantized)
  with pytest.raises(UserError, match='table is multiplied with is not'):
    make_plan(network, integer=True)
  make_plan(network, integer=False)


def test_a_weight_of_ones_own_for_each_pixel_is_named():
  class Own(nn.Module):
    @nn.compact
    def __call__(self, z):
      x = nn.Dense(8, name='first')(z).reshape(-1, 4, 2)
      table = self.param('table', nn.initializers.normal(1.0), (4, 2, 3))
      return jnp.einsum('bpi,pio->bpo', x, table).reshape(-1, 2, 2, 3)

  network, _ = strange_generators.make(Own)
  with pytest.raises(UserError, match='table is multiplied with is not'):
    make_plan(network, integer=True)
  make_plan(network, integer=False)


def test_a_learned_range_may_be_wide():
  class Wide(nn.Module):
    @nn.compact
    def __call__(self, z):
      x = nn.relu(nn.Dense(12, name='first')(z))
      return nn.Dense(12, name='last')(3000 * x).reshape(-1, 2, 2, 3)

  learned = Precision(QuantizerSpec('uniform', -1), QuantizerSpec('lsq'))
  network, inputs = strange_generators.make(Wide, precision=learned)
  network = network.replace(ranges={}).fitted(*inputs)
  (first, last) = make_plan(network, integer=True).steps
  assert first.highest < 100 and last.highest > 2000


def test_what_follows_a_layer_is_taken_into_it():
  class Scaled(nn.Module):
    @nn.compact
    def __call__(self, z):
      x = nn.Dense(48)(z).reshape(-1, 4, 4, 3)
      x = nn.BatchNorm(True)(1 - 2 * x)
      x = nn.Conv(5, (3, 3))(nn.relu(x)) / 3
      return nn.BatchNorm(True)(x[:, 1:, :3])

  network, _ = strange_generators.make(Scaled)
  plan = make_plan(network, integer=True)
  ops = [node.op for node in plan.nodes]
  assert ops == ['quantize', 'layer', 'relu', 'quantize', 'layer']
  assert plan.layers[1].window.size == plan.output.shape[1:3] == (3, 3)
  # Codes and scales are still the weights: the network's, multiplied.
  for layer in plan.layers:
    codes, scales = layer.codes
    np.testing.assert_allclose(codes * scales, layer.kernel, rtol=1e-5)


def test_neighbours_are_repeated_as_bytes():
  network, _ = strange_generators.make('residual')
  plan = make_plan(network, integer=True)
  made = {node.output: node.op for node in plan.nodes}
  sources = [made[n.inputs[0]] for n in plan.nodes if n.op == 'repeat']
  assert sources == ['quantize'] * 4


class Image(nn.Module):
  """Called with images, and padded round its edges."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(4, (3, 3), padding='CIRCULAR')(x))
    x = jax.image.resize(x, (x.shape[0], 8, 6, 4), 'bilinear')
    return jnp.tanh(nn.Conv(3, (3, 3))(x))


class Masked(nn.Module):
  """A norm of some channels."""

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(64)(z).reshape(-1, 4, 4, 4)
    mask = jnp.arange(4) < 3
    return nn.GroupNorm(1)(x, mask=jnp.broadcast_to(mask, x.shape))


def test_networks_of_images_resized_and_padded_round(tmp_path):
  images_in = np.random.default_rng(0).uniform(-1, 1, (5, 4, 3, 3))
  images_in = images_in.astype(np.float32)
  network, _ = strange_generators.make(Image, inputs=[images_in])
  expected = images(network, images_in)
  plan = make_plan(network, integer=True)
  for form, run in IN_INTEGERS:
    model = onnx_model(plan, form, {})
    drawn, _ = run(model, {'input_images': images_in}, tmp_path)
    assert (127.5 * np.abs(drawn - expected) <= 1).mean() >= 0.99


def test_a_norm_of_some_channels_keeps_its_mask(tmp_path):
  network, inputs = strange_generators.make(Masked, bits=(32, 32))
  model = onnx_model(make_plan(network, integer=False), 'transposed', {})
  drawn, _ = run_onnxruntime(model, feeds(inputs), tmp_path)
  np.testing.assert_allclose(drawn, network(*inputs), atol=1e-4)


def _dense(z):
  return nn.Dense(12)(z).reshape(-1, 2, 2, 3)


@pytest.mark.parametrize(
  ('compute', 'message'),
  [
    (lambda z: jnp.roll(_dense(z), 1, 0), 'number of examples'),
    (lambda z: jnp.concatenate([_dense(z)] * 2), 'one image for each example'),
    (
      lambda z: nn.ConvTranspose(2, (3, 3), (2, 2), kernel_dilation=(2, 2))(
        nn.relu(_dense(z))
      ),
      'ConvTranspose_0 is a transposed .* dilated',
    ),
    (
      lambda z: nn.ConvTranspose(2, (1, 1), (2, 2))(nn.relu(_dense(z))),
      'ConvTranspose_0 is a transposed .* smaller',
    ),
    (
      lambda z: _dense(z) + jax.random.normal(jax.random.key(0), (2, 2, 3)),
      'cannot be written in ONNX',
    ),
  ],
)
def test_refused_in_a_sentence(compute, message):
  class Own(nn.Module):
    @nn.compact
    def __call__(self, z):
      return compute(z)

  network, _ = strange_generators.make(Own)
  artifact = artifacts.Artifact(network, {})
  with pytest.raises(UserError, match=message):
    FORMATS['onnx']['-onnxruntime.onnx'](artifact)
