import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models
from qgan_jax.models import dcgan
from qgan_jax.precision import is_weight

KEY = jax.random.PRNGKey(0)
FROM_LATENTS = [name for name in models.NAMES if name not in models.FROM_IMAGES]


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
  sides = 28, 14, 7, 4
  assert dcgan.stage_sizes(28) == tuple((side, side) for side in sides)
  assert dcgan.stage_sizes((28, 28)) == dcgan.stage_sizes(28)


@pytest.mark.parametrize(
  ('size', 'stages'),
  [
    ((48, 32), ((48, 32), (24, 16), (12, 8), (6, 4), (3, 2))),
    ((32, 48), ((32, 48), (16, 24), (8, 12), (4, 6), (2, 3))),
    ((17, 50), ((17, 50), (9, 25), (5, 13), (3, 7), (2, 4))),
  ],
)
def test_stages_halve_both_sides(size, stages):
  assert dcgan.stage_sizes(size) == stages


@pytest.mark.parametrize('family', FROM_LATENTS)
@pytest.mark.parametrize('size', [(48, 32), (16, 31), (256, 16), (20, 90)])
def test_images_of_any_family_have_any_sides(family, size):
  shared = {'channels': 8, 'num_classes': 2}
  g = models.make_generator(
    family, image_size=size, image_channels=4, latent_dim=4, **shared
  )
  d = models.make_discriminator(family, **shared)
  labels = jnp.arange(2)

  def run():
    images, _ = g.init_with_output(KEY, jnp.zeros((2, 4)), labels)
    return images, d.init_with_output(KEY, images, labels)[0]

  images, logits = jax.eval_shape(run)
  assert images.shape == (2, *size, 4)
  assert logits.shape == (2,)


@pytest.mark.parametrize('family', FROM_LATENTS)
def test_a_pair_of_equal_sides_is_one_side(family):
  shared = {'channels': 8, 'latent_dim': 4, 'image_channels': 1}
  latents = jax.random.normal(KEY, (2, 4))
  one, pair = (
    models.make_generator(family, image_size=size, **shared).init_with_output(
      KEY, latents
    )
    for size in (20, (20, 20))
  )
  assert jax.tree.all(jax.tree.map(jnp.array_equal, one, pair))


def test_every_weight_of_a_narrow_generator_is_seen():
  """Of the first map, no more is made than what the image depends on."""
  g = dcgan.Generator((24, 8), channels=2, latent_dim=3, norm='none')
  latents = jax.random.normal(KEY, (64, 3))
  params = g.init(KEY, latents)
  kernel = params['params']['project']['kernel']
  assert kernel.shape[:2] == (4, 2)

  def loss(params):
    return jnp.square(g.apply(params, latents)).sum()

  gradient = jax.grad(loss)(params)['params']['project']['kernel']
  assert jnp.all(jnp.abs(gradient).sum((2, 3)) > 0)


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
