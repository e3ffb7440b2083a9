"""The ResNets of SNGAN, against their definition."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models
from qgan_jax.models import resnet
from qgan_jax.models.attention import SelfAttention
from qgan_jax.models.normalization import ConditionalNorm
from qgan_jax.models.stages import halve, stage_sizes, upsample
from qgan_jax.precision import Bits, make_precision
from qgan_jax.precision.layers import find_layers

KEY = jax.random.key(0)


def conv(inputs, outputs, size):
  return inputs * outputs * size * size + outputs


def reference_g(widths, latent_dim=128, num_classes=0):
  """Parameters of mimicry's SNGAN and cGAN-PD generators, layer by layer."""
  total = latent_dim * 16 * widths[0] + 16 * widths[0]
  norm = 2 * max(num_classes, 1)
  for before, after in zip(widths, widths[1:], strict=False):
    total += conv(before, after, 3) + conv(after, after, 3)
    total += conv(before, after, 1) + norm * (before + after)
  return total + 2 * widths[-1] + conv(widths[-1], 3, 3)


def reference_d(widths, halved, num_classes=0):
  """Parameters of its discriminators; `halved`: the blocks that downsample."""
  first = widths[0]
  total = conv(3, first, 3) + conv(first, first, 3) + conv(3, first, 1)
  for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
    total += conv(before, before, 3) + conv(before, after, 3)
    if before != after or i + 1 in halved:
      total += conv(before, after, 1)
  return total + widths[-1] * (1 + num_classes) + 1


def count(module, *args):
  shapes = jax.eval_shape(lambda: module.init(KEY, *args))
  return sum(x.size for x in jax.tree.leaves(shapes['params']))


@pytest.mark.parametrize(
  ('size', 'channels', 'g_widths', 'd_widths', 'halved'),
  [
    (32, (256, 128), [256] * 4, [128] * 4, {0, 1}),
    (64, (64, 64), [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024],
     {0, 1, 2, 3, 4}),
    (128, (64, 64), [1024, 1024, 512, 256, 128, 64],
     [64, 128, 256, 512, 1024, 1024], {0, 1, 2, 3, 4}),
  ],
)  # fmt: skip
@pytest.mark.parametrize('num_classes', [0, 10])
def test_parameters_are_mimicrys(
  size, channels, g_widths, d_widths, halved, num_classes
):
  labels = jnp.zeros(1, jnp.int32) if num_classes else None
  g = resnet.Generator(size, channels=channels[0], num_classes=num_classes)
  d = resnet.Discriminator(channels[1], num_classes)
  expected = reference_g(g_widths, num_classes=num_classes)
  assert count(g, jnp.zeros((1, 128)), labels) == expected
  images = jnp.zeros((1, size, size, 3))
  assert count(d, images, labels) == reference_d(d_widths, halved, num_classes)


def test_sngan_32_is_as_large_as_it_is_said_to_be():
  assert reference_g([256] * 4) == 4_276_739
  assert reference_d([128] * 4, {0, 1}) == 1_053_825


@pytest.mark.parametrize(
  ('size', 'image_channels', 'num_classes'),
  [(16, 1, 0), (28, 1, 3), (33, 2, 0), (48, 4, 3), (256, 3, 0)],
)
def test_shapes(size, image_channels, num_classes):
  labels = jnp.arange(2) if num_classes else None
  shared = {'channels': 8, 'num_classes': num_classes, 'attention': True}
  g = models.make_generator(
    'resnet', image_size=size, image_channels=image_channels, **shared
  )
  d = models.make_discriminator('resnet', **shared)

  def run():
    images, _ = g.init_with_output(KEY, jnp.zeros((2, 128)), labels)
    return images, d.init_with_output(KEY, images, labels)[0]

  images, logits = jax.eval_shape(run)
  assert images.shape == (2, size, size, image_channels)
  assert logits.shape == (2,)


def test_upsampling_copies_and_halving_takes_means():
  x = np.random.RandomState(0).randn(2, 3, 4, 5)
  up = np.kron(x[0, :, :, 0], np.ones((2, 2)))
  np.testing.assert_allclose(upsample(x, (6, 8))[0, :, :, 0], up, rtol=1e-6)
  cut = upsample(x, (5, 7))[0, :, :, 0]
  np.testing.assert_allclose(cut, up[:5, :7], rtol=1e-6)
  small = halve(jnp.asarray(x))
  assert small.shape == (2, 2, 2, 5)
  np.testing.assert_allclose(small[:, 0, 1], x[:, :2, 2:].mean((1, 2)), 1e-5)
  np.testing.assert_allclose(small[:, 1, 0], x[:, 2:, :2].mean((1, 2)), 1e-5)
  assert [side for side, _ in stage_sizes(33)] == [33, 17, 9, 5, 3]


def test_every_class_has_scales_of_its_own():
  x = np.random.RandomState(0).randn(4, 3, 3, 2).astype(np.float32)
  labels = jnp.array([0, 1, 1, 0])
  layer = ConditionalNorm('batch', 2)
  variables = layer.init(KEY, x, labels, False)
  table = np.random.RandomState(1).randn(2, 4).astype(np.float32)
  variables = {**variables, 'params': {'of_class': {'embedding': table}}}
  y, _ = layer.apply(variables, x, labels, True, mutable=['batch_stats'])
  x = x.astype(np.float64)
  unit = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
  own = table[labels][:, None, None]
  np.testing.assert_allclose(y, unit * own[..., :2] + own[..., 2:], atol=1e-5)
  start = layer.init(KEY, x, labels, False)['params']['of_class']['embedding']
  np.testing.assert_allclose(start[:, :2], 1, atol=0.1)
  np.testing.assert_array_equal(start[:, 2:], 0)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_attention_is_that_of_sagan():
  x = np.random.RandomState(0).randn(2, 4, 4, 16).astype(np.float32)
  layer = SelfAttention()
  variables = layer.init(KEY, x)
  np.testing.assert_array_equal(layer.apply(variables, x), x)
  params = {**variables['params'], 'gamma': jnp.float32(0.5)}
  kernels = {
    name: np.asarray(params[name]['kernel'], np.float64)[0, 0]
    for name in ('query', 'key', 'value', 'output')
  }
  flat = x.astype(np.float64)

  def pooled(y):
    return y.reshape(2, 2, 2, 2, 2, -1).max((2, 4)).reshape(2, 4, -1)

  query = (flat @ kernels['query']).reshape(2, 16, -1)
  key, value = (pooled(flat @ kernels[name]) for name in ('key', 'value'))
  seen = softmax(query @ key.swapaxes(1, 2)) @ value
  expected = flat + 0.5 * (seen @ kernels['output']).reshape(x.shape)
  got = layer.apply({'params': params}, x)
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_attention_of_one_channel():
  x = jnp.ones((2, 4, 4, 1))
  y, _ = SelfAttention().init_with_output(KEY, x)
  assert y.shape == x.shape


def test_attention_of_d_has_normalized_kernels():
  d = resnet.Discriminator(8, attention=True)
  stats = jax.eval_shape(lambda: d.init(KEY, jnp.zeros((1, 32, 32, 3))))
  names = stats['batch_stats']['attention']
  assert len(names) == 4
  assert count(resnet.Generator(16, channels=16, attention=True),
               jnp.zeros((1, 128))) > 0  # fmt: skip


def affine(x, bits):
  """Affine quantization of Jacob et al. over a batch's range, in float64."""
  x = np.asarray(x, np.float64)
  low, high = min(x.min(), 0), max(x.max(), 0)
  scale = (high - low) / (2**bits - 1)
  zero = np.rint(-low / scale)
  return (np.clip(np.rint(x / scale + zero), 0, 2**bits - 1) - zero) * scale


PRECISION = make_precision(
  weights='uniform', activations='affine', per_channel=True, ranges='dynamic',
  momentum=0.9, input_bits=8,
)  # fmt: skip


def test_a_quantized_residual_block_is_that_by_hand():
  """Either branch has a range of its own; copied pixels have equal codes."""
  x = jax.random.normal(KEY, (2, 4, 4, 3)) * 3

  class Net(nn.Module):
    """A layer, so that what the block reads is not the network's input."""

    @nn.compact
    def __call__(self, x):
      x = nn.Conv(4, (1, 1), name='before')(x)
      return resnet.UpBlock(5, (7, 7), 'none', 0, jnp.float32, name='block')(
        x, None, False
      )

  variables = jax.jit(Net().init)(KEY, x)
  bits = Bits(jnp.float32(32), jnp.float32(4))
  got, ranges = jax.jit(
    lambda variables, x: PRECISION.apply(Net(), variables, {}, bits, x)
  )(variables, x)
  params = variables['params']

  def layer(name, x, size, n=4):
    p = params['block'][name] if name != 'before' else params[name]
    y = nn.Conv(p['bias'].size, (size, size)).apply(
      {'params': p}, jnp.asarray(affine(x, n), jnp.float32)
    )
    return np.asarray(y, np.float64)

  def up(x):
    return x.repeat(2, 1).repeat(2, 2)[:, :7, :7]

  y = layer('before', x, 1, 8)
  h = layer('conv0', up(np.maximum(y, 0)), 3)
  h = layer('conv1', np.maximum(h, 0), 3)
  np.testing.assert_allclose(got, h + up(layer('shortcut', y, 1)), atol=1e-4)
  # The shortcut reads values of both signs, the other branch those above 0.
  assert ranges['block/shortcut'][0] < 0 == ranges['block/conv0'][0]


def test_what_reads_the_image_keeps_the_inputs_bits():
  d = resnet.Discriminator(8, attention=True)
  found = find_layers(d, jnp.zeros((1, 32, 32, 3)))
  own = {layer.path for layer in found if layer.reads_input}
  assert own == {'block0_conv0', 'block0_shortcut'}


def test_sides_of_attentions_products_are_quantized():
  x = jax.random.normal(KEY, (2, 4, 4, 16))
  layer = SelfAttention()
  found = find_layers(layer, x)
  sides = {'queries', 'keys', 'weights', 'values'}
  assert sides < {layer.path for layer in found}
  assert not any(layer.kernel for layer in found if layer.path in sides)

  @jax.jit
  def run(x):
    seen = {}
    PRECISION.apply(
      layer, layer.init(KEY, x), {}, Bits(jnp.float32(32), jnp.float32(2)), x,
      observe=lambda path, x, params, bits: seen.setdefault(path, (x, bits)),
    )  # fmt: skip
    return seen

  weights, bits = run(x)['weights']
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  assert weights.shape == (2, 16, 4)
  assert bits == 2
