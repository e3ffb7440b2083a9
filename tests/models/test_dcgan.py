import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models
from qgan_jax.models import dcgan
from qgan_jax.precision import is_weight

KEY = jax.random.PRNGKey(0)


@pytest.mark.parametrize('size', [28, 32, 64])
@pytest.mark.parametrize('norm', ['group', 'batch', 'none'])
@pytest.mark.parametrize('num_classes', [0, 10])
def test_shapes(size, norm, num_classes):
  labels = jnp.arange(2) if num_classes else None
  g = models.make_generator(
    'dcgan',
    image_size=size,
    image_channels=3,
    channels=8,
    norm=norm,
    num_classes=num_classes,
  )
  latents = jax.random.normal(KEY, (2, 64))
  images, _ = jax.eval_shape(lambda: g.init_with_output(KEY, latents, labels))
  assert images.shape == (2, size, size, 3)
  d = models.make_discriminator(
    'dcgan', channels=8, norm=norm, num_classes=num_classes
  )
  logits, _ = jax.eval_shape(
    lambda: d.init_with_output(KEY, jnp.zeros(images.shape), labels)
  )
  assert logits.shape == (2,)


@pytest.mark.parametrize(
  ('size', 'channels'), [(16, 1), (17, 2), (20, 4), (33, 3), (256, 1)]
)
def test_any_size_and_number_of_channels(size, channels):
  g = dcgan.Generator(size, channels, channels=1, latent_dim=4, norm='none')
  d = dcgan.Discriminator(channels=1)

  def run():
    images, _ = g.init_with_output(KEY, jnp.zeros((2, 4)))
    return images, d.init_with_output(KEY, images)[0]

  images, logits = jax.eval_shape(run)
  assert images.shape == (2, size, size, channels)
  assert logits.shape == (2,)


def test_stages_of_28_pixels():
  assert dcgan.stage_sizes(28) == (28, 14, 7, 4)


def test_most_parameters_are_in_convolutions():
  variables = models.make_generator('dcgan').init(KEY, jnp.zeros((1, 64)))
  sizes = {
    name: sum(x.size for x in jax.tree.leaves(layer))
    for name, layer in variables['params'].items()
  }
  up = sum(size for name, size in sizes.items() if name.startswith('up'))
  assert up > 0.5 * sum(sizes.values())


def test_labels_change_the_image_and_the_verdict():
  g = models.make_generator('dcgan', channels=8, num_classes=3)
  latents = jax.random.normal(KEY, (1, 64))
  variables = g.init(KEY, latents, jnp.array([0]))
  images = [g.apply(variables, latents, jnp.array([i])) for i in range(2)]
  assert np.abs(images[0] - images[1]).max() > 0
  d = models.make_discriminator('dcgan', channels=8, num_classes=3)
  variables = d.init(KEY, images[0], jnp.array([0]))
  logits = [d.apply(variables, images[0], jnp.array([i])) for i in range(2)]
  assert logits[0] != logits[1]


def test_spectral_norm_bounds_every_singular_value():
  d = models.make_discriminator('dcgan', channels=8, spectral_norm=True)
  x = jax.random.normal(KEY, (2, 28, 28, 1))
  variables = d.init(KEY, x)
  # Weights a hundred times as large leave the verdict as it is.
  large = {
    **variables,
    'params': jax.tree_util.tree_map_with_path(
      lambda path, w: 100 * w if is_weight((path[-1].key,), w) else w,
      variables['params'],
    ),
  }
  for _ in range(30):
    _, stats = d.apply(variables, x, train=True, mutable=['batch_stats'])
    variables = {**variables, **stats}
    _, stats = d.apply(large, x, train=True, mutable=['batch_stats'])
    large = {**large, **stats}
  np.testing.assert_allclose(
    d.apply(large, x), d.apply(variables, x), rtol=1e-3
  )
