"""The networks of R3GAN, against their definition."""

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from qgan_jax import models
from qgan_jax.models import r3gan
from qgan_jax.models.stages import interpolate, smooth_halve
from qgan_jax.precision import Bits, make_precision
from qgan_jax.variants import losses

KEY = jax.random.key(0)


def bilinear(x, size):
  """Linear interpolation at every half pixel, by SciPy."""
  at = [np.arange(side) / 2 for side in size]
  grid = np.meshgrid(*at, indexing='ij')
  return np.stack(
    [
      ndimage.map_coordinates(x[..., c], grid, order=1, mode='nearest')
      for c in range(x.shape[-1])
    ],
    -1,
  )


@pytest.mark.parametrize(
  ('before', 'after'), [((3, 3), (6, 6)), ((4, 4), (7, 7)), ((3, 4), (5, 8))]
)
def test_upsampling_is_bilinear(before, after):
  x = np.random.RandomState(0).randn(2, *before, 3)
  got = interpolate(jnp.asarray(x), after)
  for image, expected in zip(got, x, strict=True):
    # The last pixel has no next one, to half a pixel beyond.
    np.testing.assert_allclose(image, bilinear(expected, after), atol=1e-6)


@pytest.mark.parametrize('size', [(6, 6), (7, 7), (6, 7)])
def test_downsampling_is_a_binomial_filter_at_every_other_pixel(size):
  x = np.random.RandomState(0).randn(2, *size, 3)
  smooth = x
  for axis in (1, 2):
    smooth = ndimage.convolve1d(
      smooth, [0.25, 0.5, 0.25], axis=axis, mode='nearest'
    )
  got = smooth_halve(jnp.asarray(x))
  np.testing.assert_allclose(got[:, :3, :3], smooth[:, :5:2, :5:2], atol=1e-6)
  assert got.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 3)


@pytest.mark.parametrize(
  ('size', 'channels', 'image_channels', 'num_classes'),
  [(16, 8, 1, 0), (28, 24, 1, 3), (33, 40, 4, 0), (64, 8, 3, 0)],
)
def test_shapes(size, channels, image_channels, num_classes):
  labels = jnp.arange(2) if num_classes else None
  shared = {'channels': channels, 'num_classes': num_classes}
  g = models.make_generator(
    'r3gan', image_size=size, image_channels=image_channels, **shared
  )
  d = models.make_discriminator('r3gan', **shared)

  def run():
    images, _ = g.init_with_output(KEY, jnp.zeros((2, 64)), labels)
    return images, d.init_with_output(KEY, images, labels)[0]

  images, logits = jax.eval_shape(run)
  assert images.shape == (2, size, size, image_channels)
  assert logits.shape == (2,)


def test_parameters_are_those_of_the_definition():
  """16 channels a group; biases before activations, and nowhere else."""
  width, stages, blocks, latent_dim = 48, 4, 2, 64
  wide = 2 * width
  block = width * wide + wide + wide * 16 * 9 + wide + wide * width
  shapes = jax.eval_shape(
    lambda: r3gan.Generator(32, channels=width).init(KEY, jnp.zeros((1, 64)))
  )['params']
  total = sum(x.size for x in jax.tree.leaves(shapes))
  begin = latent_dim * width + 16 * width
  assert total == begin + stages * blocks * block + 3 * width
  shapes = jax.eval_shape(
    lambda: r3gan.Discriminator(width).init(KEY, jnp.zeros((1, 32, 32, 3)))
  )['params']
  total = sum(x.size for x in jax.tree.leaves(shapes))
  assert total == 3 * width + stages * blocks * block + 16 * width + width


def test_a_block_starts_as_nothing_and_its_weights_as_the_paper_says():
  x = jax.random.normal(KEY, (2, 4, 4, 64))
  block = r3gan.Block(depth=16, dtype=jnp.float32)
  variables = block.init(KEY, x)
  np.testing.assert_array_equal(block.apply(variables, x), x)
  kernels = {k: v['kernel'] for k, v in variables['params'].items()}
  assert kernels['grouped'].shape == (3, 3, 16, 128)
  gain = np.sqrt(2 / 1.04) * 16 ** (-1 / 4)
  for name, fan_in in (('expand', 64), ('grouped', 9 * 16)):
    np.testing.assert_allclose(
      kernels[name].std(), gain / np.sqrt(fan_in), rtol=0.03
    )


class Small(r3gan.Discriminator):
  """One block a stage, so that differences in float64 are quick."""

  channels: int = 2
  blocks: int = 1


def test_gradients_of_r1_and_r2_are_finite_differences():
  """Of the penalty by the weights, through grouped convolutions."""
  with jax.enable_x64(True):
    rng = np.random.RandomState(0)
    real, fake = rng.randn(2, 2, 5, 5, 1)
    d = Small(dtype=jnp.float64)
    params = jax.tree.map(
      lambda x: jnp.asarray(rng.randn(*x.shape) * 0.5),
      jax.eval_shape(lambda: d.init(KEY, real))['params'],
    )

    @jax.jit
    def value(params):
      def logits(x):
        return d.apply({'params': params}, x).astype(jnp.float64)

      return losses.r1_r2(logits, real, fake, None).mean()

    gradient = jax.jit(jax.grad(value))(params)
    for _ in range(3):
      way = jax.tree.map(lambda x: jnp.asarray(rng.randn(*x.shape)), params)
      ends = (
        value(jax.tree.map(lambda x, w, h=h: x + h * w, params, way))
        for h in (1e-4, -1e-4)
      )
      expected = np.subtract(*ends) / 2e-4
      got = sum(
        jnp.vdot(a, b)
        for a, b in zip(
          jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True
        )
      )
      # Logits, and so the differences, have the digits of float32.
      np.testing.assert_allclose(got, expected, rtol=2e-3)


def test_r1_and_r2_reach_the_weights_of_a_quantized_network():
  """As in float where 8 bits are enough to follow the same slopes."""
  d = Small(channels=8)
  x = jax.random.normal(KEY, (8, 8, 8, 1)).clip(-1, 1)
  rng = np.random.RandomState(0)
  params = jax.tree.map(
    lambda x: jnp.float32(rng.randn(*x.shape) * 0.3),
    jax.eval_shape(lambda: d.init(KEY, x))['params'],
  )
  precision = make_precision(
    weights='lsq', activations='affine', per_channel=True, ranges='dynamic',
    momentum=0.9, input_bits=8,
  )  # fmt: skip

  @jax.jit
  def gradient(bits):
    widths = Bits(bits, bits)

    def value(params):
      weights = precision.quantize_weights(params, widths)

      def logits(x):
        variables = {'params': weights}
        return precision.apply(d, variables, {}, widths, x)[0]

      return losses.r1_r2(logits, x[:4], x[4:], None).mean()

    return ravel_pytree(jax.grad(value)(params))[0]

  in_float, quantized = gradient(32.0), gradient(8.0)
  norms = np.linalg.norm(in_float) * np.linalg.norm(quantized)
  assert np.vdot(in_float, quantized) / norms > 0.97
  assert not np.array_equal(in_float, quantized)
