"""Generators of several kinds, and their quantization."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax import models
from qgan_jax.precision import (
  Bits,
  inputs_like,
  Precision,
  Quantized,
  QuantizerSpec,
)

CLASSES = 3


class Residual(nn.Module):
  """As SNGAN's: doubling by nearest neighbours, conditional BatchNorm, sums."""

  num_classes: int = CLASSES

  @nn.compact
  def __call__(self, latents, labels):
    x = nn.Dense(4 * 4 * 16)(latents).reshape(-1, 4, 4, 16)
    for features in (16, 8):
      y = x
      for i in range(2):
        y = nn.BatchNorm(True, use_scale=False, use_bias=False)(y)
        gain = nn.Embed(CLASSES, y.shape[-1])(labels)[:, None, None]
        shift = nn.Embed(CLASSES, y.shape[-1])(labels)[:, None, None]
        y = nn.relu(y * (1 + gain) + shift)
        if i == 0:
          y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
        y = nn.Conv(features, (3, 3))(y)
      wide = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
      x = y + nn.Conv(features, (1, 1))(wide)
    x = nn.relu(nn.BatchNorm(True)(x))
    return jnp.tanh(nn.Conv(3, (3, 3))(x))


class Attention(nn.Module):
  """Self-attention, grouped and strided convolutions, a resized image."""

  @nn.compact
  def __call__(self, latents):
    x = nn.Dense(4 * 6 * 8)(latents).reshape(-1, 4, 6, 8)
    x = nn.leaky_relu(nn.Conv(16, (3, 3), feature_group_count=4)(x), 0.2)
    x = jax.image.resize(x, (x.shape[0], 8, 12, 16), 'nearest')
    x = nn.silu(nn.GroupNorm(num_groups=4)(nn.Conv(8, (3, 3), (2, 2))(x)))
    flat = x.reshape(x.shape[0], -1, 8)
    query, key, value = (nn.Dense(8)(flat) for _ in range(3))
    weights = nn.softmax(query @ key.swapaxes(1, 2) / 3)
    x = x + (weights @ value).reshape(x.shape)
    x = nn.InstanceNorm()(nn.ConvTranspose(4, (3, 3), (2, 2))(x))
    x = nn.avg_pool(x, (2, 2), (1, 1), 'SAME')
    x = jnp.concatenate([x, jnp.flip(x, 2)], -1)
    x = nn.ConvTranspose(2, (5, 4), (2, 1), padding='VALID')(nn.relu(x))
    return jnp.tanh(x[:, 1:, :-2])


class Plain(nn.Module):
  """Dense layers alone, with names and axes that are unusual."""

  @nn.compact
  def __call__(self, z):
    x = nn.gelu(nn.DenseGeneral((4, 5))(z))
    x = nn.LayerNorm()(x)
    x = nn.DenseGeneral((3, 6), axis=(-2, -1))(x)
    x = nn.sigmoid(x)[:, :, None, :].transpose(0, 3, 1, 2)
    pixels = nn.Dense(4)(nn.elu(nn.Dense(5)(x)))
    return 2 * jnp.clip(pixels, -0.5, 0.5)


class Learned(nn.Module):
  """Layers of constants: of one in all examples, and of one repeated."""

  @nn.compact
  def __call__(self, latents):
    normal = nn.initializers.normal(1.0)
    x = self.param('shared', normal, (1, 2, 3, 8))
    x = nn.relu(nn.GroupNorm(2)(nn.ConvTranspose(8, (4, 4), (2, 2))(x)))
    x = x.reshape(1, 4, 6, 2, 4).swapaxes(3, 4).reshape(x.shape)
    tokens = self.param('tokens', normal, (5, 8))
    tokens = jnp.broadcast_to(tokens, (latents.shape[0], 5, 8))
    query = nn.Dense(24 * 8)(latents).reshape(-1, 24, 8)
    weights = nn.softmax(query @ nn.Dense(8)(tokens).swapaxes(1, 2) / 3)
    x = x * nn.Dense(8)(latents)[:, None, None]
    x = x + (weights @ tokens).reshape(-1, 4, 6, 8)
    return jnp.tanh(nn.Conv(3, (3, 3))(x))


class Patches(nn.Module):
  """Four patches of each image, in one axis with the examples."""

  @nn.compact
  def __call__(self, latents):
    x = nn.relu(nn.Dense(4 * 8)(latents)).reshape(-1, 8)
    x = nn.Dense(2 * 3 * 8)(x).reshape(-1, 2, 3, 8)
    x = nn.GroupNorm(2)(nn.Conv(8, (3, 3))(x))
    x = jnp.where(jnp.arange(3)[:, None] > 0, x, -0.5)
    x = nn.relu(nn.ConvTranspose(4, (4, 4), (2, 2))(x))
    x = nn.max_pool(x, (2, 2), (1, 1), 'SAME')
    x = x.reshape(-1, 2, 2, 4, 6, 4).swapaxes(2, 3).reshape(-1, 8, 12, 4)
    return jnp.tanh(nn.Conv(1, (3, 3))(x))


class Unbiased(nn.Module):
  """Layers without a bias, whose channels a reshape takes apart."""

  @nn.compact
  def __call__(self, latents):
    x = nn.Dense(6 * 8, use_bias=False)(latents).reshape(-1, 6, 8)
    x = nn.MultiHeadDotProductAttention(2, use_bias=False)(x, x)
    x = nn.Dense(8, use_bias=False)(x).reshape(-1, 2, 3, 8)
    x = nn.Conv(3 * 4, (3, 3), use_bias=False)(x)
    x = x.reshape(-1, 2, 3, 2, 2, 3).swapaxes(2, 3).reshape(-1, 4, 6, 3)
    return jnp.tanh(x)


GENERATORS = {'residual': Residual, 'attention': Attention, 'plain': Plain}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _calibrate(module, precision, variables, bits, *inputs):
  return precision.init(module, variables, bits, *inputs)


def make(
  name, *, bits=(8, 8), num=32, precision=None, labels=None, inputs=None
):
  """(network with calibrated ranges, its inputs), all near 1.

  Args:
    name: in `GENERATORS`, or a class.
    bits: of weights and activations.
    num: of the inputs.
    precision: None for the defaults.
    labels: whether it takes some; None for what the name tells.
    inputs: None for latents.
  """
  module = GENERATORS.get(name, name)()
  rng = np.random.default_rng(0)
  inputs = inputs or [rng.standard_normal((num, 12)).astype(np.float32)]
  if labels or (labels is None and name == 'residual'):
    inputs.append(np.arange(num, dtype=np.int32) % CLASSES)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)

  def value(path, x):
    name = path[-1].key
    if name == 'kernel':
      count = np.prod(x.shape[:-1])
      return rng.standard_normal(x.shape) * np.sqrt(2 / count)
    if name in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, x.shape)
    return 0.3 * rng.standard_normal(x.shape)

  variables = jax.tree_util.tree_map_with_path(
    lambda path, x: value(path, x).astype(np.float32), shapes
  )
  if precision is None:
    precision = Precision(QuantizerSpec('uniform', -1), QuantizerSpec('affine'))
  widths = Bits(*(jnp.float32(n) for n in bits))
  params = jax.jit(precision.quantize_weights)(variables['params'], widths)
  variables = {**variables, 'params': jax.tree.map(np.asarray, params)}
  ranges, _ = _calibrate(module, precision, variables, widths, *inputs)
  network = Quantized(
    module,
    precision,
    widths,
    variables,
    jax.tree.map(np.asarray, ranges),
    {},
    inputs_like(*inputs),
    rounded=True,
  )
  return network, inputs


def from_images(family, size, norm, *, bits=(8, 8)):
  """(a family's network that is given bytes, its images): see `make`."""
  rng = np.random.default_rng(0)
  given = rng.integers(0, 256, (6, *size, 4)) / 127.5 - 1
  given = given.astype(np.float32)
  attributes = {'channels': 8, 'norm': norm, 'image_channels': 4, 'blocks': 2}
  module = models.make_generator(
    family, **models.attributes(family, 'Generator', attributes)
  )
  first = {'unet': 'down0', 'translator': 'stem'}[family]
  precision = Precision(
    QuantizerSpec('uniform', -1),
    QuantizerSpec('affine'),
    exceptions=(('activations', first, QuantizerSpec('pixels')),),
  )
  network, _ = make(
    lambda: module, inputs=[given], precision=precision, bits=bits
  )
  return network, given
