"""`quantize`, the function: any two Linen modules, every layer's channels."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models
from qgan_jax.quantize import quantize

IMAGE = jnp.zeros((1, 8, 8, 4))
# Each with the axes of its kernel that are output channels.
LAYERS = {
  'dense': (lambda: nn.Dense(5), (-1,)),
  'dense_square': (lambda: nn.Dense(4, use_bias=False), (-1,)),
  'dense_general': (lambda: nn.DenseGeneral((3, 5)), (-2, -1)),
  'dense_general_of_two': (lambda: nn.DenseGeneral(5, axis=(-2, -1)), (-1,)),
  'conv': (lambda: nn.Conv(6, (3, 3)), (-1,)),
  'conv_square': (lambda: nn.Conv(4, (3, 3), use_bias=False), (-1,)),
  'conv_grouped': (lambda: nn.Conv(8, (3, 3), feature_group_count=2), (-1,)),
  # As many taps, 2 · 4, as pixels on a side.
  'conv_local': (lambda: nn.ConvLocal(5, (2, 1)), (-1,)),
  'transposed': (lambda: nn.ConvTranspose(6, (3, 3)), (-1,)),
  'turned': (
    lambda: nn.ConvTranspose(6, (3, 3), transpose_kernel=True),
    (-2,),
  ),
  'turned_square': (
    lambda: nn.ConvTranspose(4, (3, 3), transpose_kernel=True, use_bias=False),
    (-2,),
  ),
}
# What a call without inputs cannot know of a layer that a call makes.
UNKNOWN = ('turned_square',)


class Held(nn.Module):
  """Has its layer before it is called, deep in what `setup` makes."""

  make: Callable[[], nn.Module]
  unused: nn.Module

  def setup(self):
    self.blocks = {'a': [nn.Sequential([self.make(), nn.relu])]}

  def __call__(self, x):
    return self.blocks['a'][0](x)


class Compact(nn.Module):
  """Makes its layer in the call."""

  make: Callable[[], nn.Module]

  @nn.compact
  def __call__(self, x):
    return self.make()(x)


def bind_with_channels(module, axes):
  """Bound, its kernels' channels of sizes from 1 to 1e5; and the kernel."""
  variables = jax.eval_shape(module.init, jax.random.key(0), IMAGE)
  rng = np.random.default_rng(0)

  def spread(path, w):
    if path[-1].key != 'kernel':
      return jnp.zeros(w.shape)
    channels = tuple(w.shape[axis] for axis in axes)
    sizes = np.logspace(0, 5, int(np.prod(channels))).reshape(channels)
    others = [i for i in range(w.ndim) if i - w.ndim not in axes]
    sizes = np.expand_dims(sizes, others)
    # The largest of a channel is in it, and all are of its size.
    values = rng.uniform(0.5, 1, w.shape) * rng.choice([-1, 1], w.shape)
    return jnp.asarray(values * sizes, jnp.float32)

  variables = jax.tree_util.tree_map_with_path(spread, variables)
  return module.bind(variables)


def kernel_of(module):
  _, variables = module.unbind()
  leaves = jax.tree.leaves_with_path(variables['params'])
  ((_, kernel),) = [x for x in leaves if x[0][-1].key == 'kernel']
  return np.asarray(kernel, np.float64)


def expected_of(w, axes, bits):
  """Jacob et al. with a scale for each output channel, in float64."""
  others = tuple(i for i in range(w.ndim) if i - w.ndim not in axes)
  scale = np.abs(w).max(others, keepdims=True) / (2 ** (bits - 1) - 1)
  return np.rint(w / scale) * scale


@pytest.mark.parametrize('name', LAYERS)
def test_every_layer_has_a_scale_for_each_output_channel(name):
  make, axes = LAYERS[name]
  inputs = [jax.ShapeDtypeStruct(IMAGE.shape, IMAGE.dtype)]
  cases = [
    (make(), None),
    (nn.Sequential([make()]), None),
    (Held(make, nn.Dense(3)), None),
    (Compact(make), inputs),
  ]
  if name not in UNKNOWN:
    cases.append((Compact(make), None))
  for module, inputs in cases:
    bound = bind_with_channels(module, axes)
    one, other = quantize(
      bound, bound, 4, generator_inputs=inputs, discriminator_inputs=inputs
    )
    w = kernel_of(bound)
    np.testing.assert_allclose(
      kernel_of(one), expected_of(w, axes, 4), rtol=1e-5
    )
    np.testing.assert_array_equal(kernel_of(one), kernel_of(other))


def test_one_scale_for_a_tensor_if_asked():
  bound = bind_with_channels(nn.ConvTranspose(6, (3, 3)), (-1,))
  one, _ = quantize(bound, bound, 4, per_channel=False)
  np.testing.assert_allclose(
    kernel_of(one), expected_of(kernel_of(bound), (), 4), rtol=1e-5
  )


def test_the_networks_of_this_package():
  generator = models.make_generator(
    'dcgan', image_size=8, channels=8, latent_dim=5
  )
  latents = jax.random.normal(jax.random.key(1), (3, 5))
  bound = generator.bind(jax.jit(generator.init)(jax.random.key(0), latents))
  one, _ = quantize(bound, bound, 8)
  images, rounded = bound(latents), one(latents)
  error = float(jnp.abs(images - rounded).max())
  assert 0 < error < 0.05
  same, _ = quantize(bound, bound, 32)
  np.testing.assert_array_equal(same(latents), images)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    *(
      ({'bit_width': width}, 'whole number from 1 to 16, or 32 for float')
      for width in (0, -1, 17, 64, 99, 1.5, 8.0, True, '8', None)
    ),
    ({'quantizer': 'pact'}, "quantizer='pact': one of uniform, affine"),
    ({'quantizer': 'grid'}, "quantizer='grid': one of uniform, affine"),
    ({'quantizer': 'unifrom'}, "quantizer='unifrom': one of uniform"),
  ],
)
def test_what_is_refused(arguments, message):
  bound = nn.Dense(2).bind(nn.Dense(2).init(jax.random.key(0), IMAGE))
  with pytest.raises(ValueError, match=message) as caught:
    quantize(bound, bound, **arguments)
  assert '\n' not in str(caught.value)


def test_numpy_widths_are_whole_numbers():
  bound = bind_with_channels(nn.Dense(2), (-1,))
  one, _ = quantize(bound, bound, np.int64(4))
  np.testing.assert_allclose(
    kernel_of(one), expected_of(kernel_of(bound), (-1,), 4), rtol=1e-5
  )
