"""U-Net and PatchGAN: sizes, skips, noise, and what a logit sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models
from qgan_jax.models.normalization import norm

KEY = jax.random.PRNGKey(0)


@pytest.mark.parametrize(
  ('size', 'patches', 'norm'),
  [
    (16, 8, 'none'),
    (17, 5, 'batch'),
    (28, 7, 'group'),
    (64, 8, 'instance'),
    (100, 13, 'instance'),
    (256, 32, 'batch'),
  ],
)
def test_any_size(size, patches, norm):
  g = models.make_generator('unet', channels=8, norm=norm, image_channels=4)
  d = models.make_discriminator('unet', channels=8, norm=norm)

  def run():
    drawn, variables = g.init_with_output(KEY, jnp.zeros((2, size, size, 3)))
    return drawn, variables, d.init_with_output(KEY, drawn)[0]

  drawn, variables, logits = jax.eval_shape(run)
  assert drawn.shape == (2, size, size, 4)
  assert logits.shape == (2, patches, patches)
  widths = [
    layer['kernel'].shape[-1]
    for name, layer in variables['params'].items()
    if name.startswith('down')
  ]
  assert widths == [min(8 * 2**i, 64) for i in range(len(widths))]


def test_instance_norm_is_its_definition():
  rng = np.random.default_rng(0)
  x = rng.normal(3, 2, (2, 5, 7, 3)).astype(np.float32)
  scale, bias = rng.normal(size=(2, 3)).astype(np.float32)
  found = norm('instance', True, jnp.float32).apply(
    {'params': {'scale': scale, 'bias': bias}}, x
  )
  wide = x.astype(np.float64)
  mean, var = (f(wide, (1, 2), keepdims=True) for f in (np.mean, np.var))
  expected = (wide - mean) / np.sqrt(var + 1e-5) * scale + bias
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def make(**kwargs):
  g = models.make_generator('unet', channels=4, norm='none', **kwargs)
  x = jax.random.normal(KEY, (1, 20, 20, 3))
  variables = g.init(KEY, x)
  # Near 1 throughout, so that everything shows.
  params = jax.tree.map(lambda w: 8 * w, variables['params'])
  return g, params, x


def test_every_skip_reaches_the_image():
  g, params, x = make()
  drawn = g.apply({'params': params}, x)
  # What comes from below stands before what comes from beside.
  for name in ('up0', 'up1'):
    kernel = params[name]['kernel']
    half = kernel.shape[2] // 2
    for part in (slice(None, half), slice(half, None)):
      without = {**params, name: {
        **params[name], 'kernel': kernel.at[:, :, part].set(0)}}  # fmt: skip
      changed = g.apply({'params': without}, x)
      assert np.abs(changed - drawn).max() > 1e-3


def test_features_are_dropped_while_training_alone():
  g, params, x = make(dropout=0.5)

  def draw(seed, train=True):
    rngs = {'dropout': jax.random.key(seed)}
    return g.apply({'params': params}, x, train=train, rngs=rngs)

  assert np.abs(draw(0) - draw(1)).max() > 1e-3
  np.testing.assert_array_equal(draw(0, train=False), draw(1, train=False))
  still = g.clone(dropout=0.0).apply({'params': params}, x, train=True)
  np.testing.assert_array_equal(still, draw(0, train=False))


def test_a_logit_of_256_pixels_sees_70_by_70():
  """As in section 3.2.2 of the paper of pix2pix."""
  d = models.make_discriminator('unet', channels=1, norm='none')
  x = jax.random.normal(KEY, (1, 256, 256, 1))
  variables = d.init(KEY, x)
  seen = jax.grad(lambda x: d.apply(variables, x)[0, 16, 16])(x)[0, :, :, 0]
  rows, columns = np.nonzero(seen)
  assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == 70


def test_every_kernel_of_the_discriminator_has_a_spectral_norm():
  d = models.make_discriminator('unet', channels=4, spectral_norm=True)
  x = jax.random.normal(KEY, (1, 16, 16, 3))
  variables = d.init(KEY, x)
  assert len(variables['batch_stats']) == len(variables['params']) == 3
