import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models
from qgan_jax.models.normalization import ConditionalNorm

KEY = jax.random.PRNGKey(0)


@pytest.mark.parametrize(
  ('channels', 'size'), [(4, 4), (7, 7), (8, 8), (11, 1), (12, 6), (24, 8)]
)
def test_groups_divide_any_number_of_channels(channels, size):
  x = np.random.default_rng(0).normal(3, 2, (2, 3, 5, channels))
  groups = x.reshape(2, 15, channels // size, size)
  mean = groups.mean((1, 3), keepdims=True)
  variance = groups.var((1, 3), keepdims=True)
  expected = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
  module = ConditionalNorm('group', 0)
  found, _ = module.init_with_output(KEY, jnp.float32(x), None, train=True)
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize('family', models.NAMES)
def test_narrow_networks_of_every_family_have_groups(family):
  seen = jnp.zeros((1, 16, 16, 1) if family in models.FROM_IMAGES else (1, 4))
  for role, x in {'Generator': seen, 'Discriminator': None}.items():
    given = {'image_size': 16, 'image_channels': 1, 'latent_dim': 4}
    given |= {'channels': 3, 'norm': 'group'}
    module = models.find(family, role)(**models.attributes(family, role, given))
    x = jnp.zeros((1, 16, 16, 1)) if x is None else x
    made, _ = jax.eval_shape(
      lambda x, module=module: module.init_with_output(KEY, x), x
    )
    assert made.shape[0] == 1
