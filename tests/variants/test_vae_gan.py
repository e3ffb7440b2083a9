"""VAE-GAN against its algorithm, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from qgan_jax import config as config_lib
from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.training import step as step_lib
from qgan_jax.variants import vae_gan

LATENT_DIM, RATE, BETA, GAMMA = 2, 0.01, 0.5, 0.3


class Encoder(nn.Module):
  @nn.compact
  def __call__(self, images):
    x = nn.Dense(2 * LATENT_DIM)(images.reshape(len(images), -1))
    return x[:, :LATENT_DIM], x[:, LATENT_DIM:]


class Decoder(nn.Module):
  @nn.compact
  def __call__(self, latents):
    return jnp.tanh(nn.Dense(64)(latents)).reshape(-1, 8, 8, 1)


class Judge(nn.Module):
  @nn.compact
  def __call__(self, images):
    x = jnp.tanh(nn.Dense(5)(images.reshape(len(images), -1)))
    return nn.Dense(1)(x)[:, 0], x


def make():
  config = config_lib.override(
    config_lib.base(batch_size=16),
    f'bits=32,optimizer=sgd,learning_rate={RATE}',
  )
  variant = vae_gan(
    Encoder(), Decoder(), Judge(), latent_dim=LATENT_DIM, beta=BETA, gamma=GAMMA
  )
  return build.set_up(
    config_lib.resolve(config), tiny_run.make_dataset(), variant=variant
  )


def test_one_step_is_that_of_the_paper():
  """Algorithm 1 of Larsen et al.; D first, the others against its update."""
  setup = make()
  state = setup.init_state()
  images = setup.dataset.train_images[None, :16]
  step = jax.jit(step_lib.make_step(setup.variant, setup.networks))
  after, metrics = step(state, {'images': images})
  modules = setup.variant.modules
  images = step_lib.to_float(images[0])
  key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 0)
  unit, latents = (
    jax.random.normal(k, (16, LATENT_DIM))
    for k in jax.random.split(jax.random.split(key)[0])
  )
  softplus = jax.nn.softplus

  def losses(params):
    """Of each network, as functions of all parameters."""

    def net(name, *args):
      return modules[name].apply({'params': params[name]}, *args)

    mean, log_variance = net('encoder', images)
    again = net('decoder', mean + jnp.exp(log_variance / 2) * unit)
    new = net('decoder', latents)
    (real, wanted), (rebuilt, found), (drawn, _) = (
      net('discriminator', x) for x in (images, again, new)
    )
    distance = 0.5 * ((wanted - found) ** 2).sum(1).mean()
    kl = 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(1)
    fakes = jnp.stack([rebuilt, drawn])
    return {
      'discriminator': softplus(-real).mean() + softplus(fakes).mean(),
      'encoder': BETA * kl.mean() + distance,
      'decoder': GAMMA * distance + softplus(-fakes).mean(),
    }

  params = {name: part.params for name, part in state.networks.items()}
  expected = dict(params)
  for name, letter in (
    ('discriminator', 'd'),
    ('encoder', 'e'),
    ('decoder', 'g'),
  ):
    # Images are made once, before D's update.
    start = {**params, 'discriminator': expected['discriminator']}
    value, gradient = jax.value_and_grad(lambda p, name=name: losses(p)[name])(
      start
    )
    np.testing.assert_allclose(metrics[f'{letter}_loss'], value, rtol=1e-5)
    expected[name] = jax.tree.map(
      lambda w, g: w - RATE * g, start[name], gradient[name]
    )
  for name, part in after.networks.items():
    for x, y in zip(
      jax.tree.leaves(part.params), jax.tree.leaves(expected[name]), strict=True
    ):
      np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6, err_msg=name)
  assert set(after.average) == {'encoder', 'decoder'}


@pytest.mark.parametrize('family', ['dcgan', 'resnet'])
def test_a_config_makes_it_of_a_family(family):
  setup = build.set_up(
    tiny_run.make_config(f'variant=vae_gan,model={family},g_bits=4,d_bits=6'),
    tiny_run.make_dataset(),
  )
  bits = {(c.network, c.role): c.bits for c in setup.table}
  assert bits['decoder', 'weights'] == 4
  assert bits['encoder', 'weights'] == bits['discriminator', 'weights'] == 6
  images = jax.ShapeDtypeStruct((1, 2, 8, 8, 1), jnp.uint8)
  step = step_lib.make_step(setup.variant, setup.networks)
  after, metrics = jax.eval_shape(
    step, setup.state_shapes(), {'images': images}
  )
  assert set(after.networks) == {'encoder', 'decoder', 'discriminator'}
  assert {'d_loss', 'e_loss', 'g_loss', 'penalty', 'kl'} <= metrics.keys()


def test_pairs_are_refused():
  with pytest.raises(ValueError, match='compares pairs'):
    vae_gan(None, None, None, latent_dim=2, loss='relativistic')
  config = tiny_run.make_config('variant=vae_gan,loss=relativistic')
  with pytest.raises(UserError, match='variant=vae_gan has no pairs'):
    config_lib.validate(config)
