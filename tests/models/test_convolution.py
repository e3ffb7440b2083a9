import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from qgan_jax.backend import traced_for
from qgan_jax.models import convolution


def reference(x, k):
  return lax.conv_general_dilated(
    x, k, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.fixture(params=['cpu', 'gpu'], autouse=True)
def backend(request):
  """What is computed on either, here."""
  with traced_for(request.param):
    yield request.param


def test_products_are_a_gpus_alone(backend):
  x, k = jnp.zeros((1, 8, 8, 3)), jnp.zeros((4, 4, 3, 5))
  traced = str(jax.make_jaxpr(convolution.conv)(x, k))
  assert ('dot_general' in traced) == (backend == 'gpu')
  assert ('conv_general_dilated' in traced) == (backend == 'cpu')


@pytest.fixture(params=[(8, 8), (7, 7), (6, 5)], ids=str)
def arrays(request):
  height, width = request.param
  rng = np.random.RandomState(0)
  x = rng.randn(2, height, width, 3).astype(np.float32)
  k = rng.randn(4, 4, 3, 5).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(k)


def test_conv_is_lax_conv(arrays):
  x, k = arrays
  np.testing.assert_allclose(convolution.conv(x, k), reference(x, k), atol=1e-4)


def test_gradients_are_those_of_lax_conv(arrays):
  x, k = arrays
  y, vjp = jax.vjp(reference, x, k)
  g = jnp.asarray(np.random.RandomState(1).randn(*y.shape), jnp.float32)
  got = jax.vjp(convolution.conv, x, k)[1](g)
  for a, b in zip(got, vjp(g), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def penalty(conv):
  """A gradient penalty through two convolutions, as a function of kernels."""

  def d(x, k):
    h = jnp.tanh(conv(x, k) * 0.1)
    return jnp.sum(jnp.tanh(conv(h, k.swapaxes(2, 3) * 0.1)))

  def value(x, k):
    return jnp.sum(jnp.square(jax.grad(d)(x, k)))

  return jax.grad(value, argnums=(0, 1))


def test_gradient_of_a_gradient_penalty(arrays):
  x, k = arrays
  for a, b in zip(
    penalty(convolution.conv)(x, k), penalty(reference)(x, k), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_every_map_is_the_adjoint_of_the_others(arrays):
  x, k = arrays
  y = jnp.asarray(
    np.random.RandomState(2).randn(*reference(x, k).shape), jnp.float32
  )
  inner = jnp.vdot(convolution.conv(x, k), y)
  adjoint = convolution.conv_adjoint(y, k, *x.shape[1:3])
  np.testing.assert_allclose(jnp.vdot(x, adjoint), inner, rtol=1e-4)
  kernel = convolution.kernel_adjoint(x, y)
  np.testing.assert_allclose(jnp.vdot(k, kernel), inner, rtol=1e-4)


def test_second_derivatives_of_the_adjoints(arrays):
  x, k = arrays
  y = reference(x, k)
  for f, args in (
    (lambda y, k: convolution.conv_adjoint(y, k, *x.shape[1:3]), (y, k)),
    (convolution.kernel_adjoint, (x, y)),
  ):
    jax.test_util.check_grads(f, args, order=2, modes=['rev'], rtol=0.05)


def test_up_conv_is_flax_conv_transpose():
  x = jnp.asarray(np.random.RandomState(0).randn(2, 5, 5, 3), jnp.float32)
  ours = convolution.UpConv(6)
  theirs = nn.ConvTranspose(6, (4, 4), (2, 2), padding='SAME')
  variables = ours.init(jax.random.PRNGKey(0), x)
  np.testing.assert_allclose(
    ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5
  )

  def gradient(module):
    return jax.grad(lambda v: jnp.sum(jnp.sin(module.apply(v, x))))(variables)

  for a, b in zip(
    jax.tree.leaves(gradient(ours)),
    jax.tree.leaves(gradient(theirs)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_strided_conv_leaves_other_convolutions_alone():
  x = jnp.asarray(np.random.RandomState(0).randn(2, 8, 8, 4), jnp.float32)
  for kwargs in (
    {'kernel_size': (3, 3), 'strides': (2, 2)},
    {'kernel_size': (4, 4), 'strides': (1, 1)},
    {'kernel_size': (4, 4), 'strides': (2, 2), 'padding': 'VALID'},
    {'kernel_size': (4, 4), 'strides': (2, 2), 'feature_group_count': 2},
    {'kernel_size': (4, 4), 'strides': (2, 2)},
  ):
    theirs = nn.Conv(6, **kwargs)
    ours = nn.Conv(6, conv_general_dilated=convolution.strided_conv, **kwargs)
    variables = theirs.init(jax.random.PRNGKey(0), x)
    np.testing.assert_allclose(
      ours.apply(variables, x), theirs.apply(variables, x), atol=1e-4
    )


def test_pixel_conv_is_flax_conv_transpose_from_one_pixel():
  x = jnp.asarray(np.random.RandomState(0).randn(3, 1, 1, 5), jnp.float32)
  ours = convolution.PixelConv(6)
  theirs = nn.ConvTranspose(6, (4, 4), padding='VALID', use_bias=False)
  variables = ours.init(jax.random.PRNGKey(0), x)
  assert ours.apply(variables, x).shape == (3, 4, 4, 6)

  def gradient(module):
    def value(variables, x):
      return jnp.sum(jnp.sin(module.apply(variables, x)))

    return jax.grad(value, argnums=(0, 1))(variables, x)

  for a, b in zip(
    jax.tree.leaves((ours.apply(variables, x), gradient(ours))),
    jax.tree.leaves((theirs.apply(variables, x), gradient(theirs))),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


def check_alike(ours, theirs, variables, x):
  """Two layers draw the same, and so do gradients of a gradient penalty."""

  def penalty(module, variables):
    def score(x):
      return jnp.sum(jnp.tanh(module.apply(variables, x)))

    return jnp.sum(jnp.square(jax.grad(score)(x)))

  for f in (lambda m, v: m.apply(v, x), penalty, jax.grad(penalty, argnums=1)):
    for got, expected in zip(
      *(jax.tree.leaves(f(m, variables)) for m in (ours, theirs)), strict=True
    ):
      np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'more',
  [
    {},
    {'kernel_size': (3, 3)},
    {'strides': (2, 2)},
    {'feature_group_count': 2},
    {'padding': ((1, 1), (0, 0))},
  ],
)
def test_pointwise_conv_is_lax_conv(backend, more):
  def layer(**own):
    return nn.Conv(6, **{'kernel_size': (1, 1), **more}, **own)

  key = jax.random.PRNGKey(0)
  x = jax.random.normal(key, (2, 5, 4, 8))
  ours = layer(conv_general_dilated=convolution.pointwise_conv)
  variables = layer().init(key, x)

  check_alike(ours, layer(), variables, x)
  traced = str(jax.make_jaxpr(lambda x: ours.apply(variables, x))(x))
  assert ('conv_general_dilated' in traced) == bool(more)


@pytest.mark.parametrize(
  ('size', 'kernel', 'groups', 'features', 'more'),
  [
    ((6, 5), (3, 3), 3, 9, {}),
    ((6, 5), (3, 2), 2, 4, {'strides': 2, 'padding': 'VALID'}),
    ((5, 4), (5, 4), 6, 6, {'padding': 'VALID'}),
    ((5, 4), (5, 4), 6, 12, {'padding': 'VALID'}),
    ((4, 4), (1, 1), 1, 5, {}),
  ],
)
def test_grouped_conv_is_lax_conv(
  backend, size, kernel, groups, features, more
):
  def layer(**own):
    return nn.Conv(
      features, kernel, feature_group_count=groups, use_bias=False, **more,
      **own,
    )  # fmt: skip

  key = jax.random.PRNGKey(0)
  x = jax.random.normal(key, (2, *size, 6))
  ours = layer(conv_general_dilated=convolution.grouped_conv)
  variables = layer().init(key, x)

  check_alike(ours, layer(), variables, x)
  written = f'feature_group_count={groups}\n'
  traced = str(jax.make_jaxpr(lambda x: ours.apply(variables, x))(x))
  assert (written in traced) == (backend == 'gpu' or groups == 1)
  with convolution.as_written():
    assert written in str(jax.make_jaxpr(lambda x: ours.apply(variables, x))(x))
