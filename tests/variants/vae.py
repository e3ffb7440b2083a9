"""A VAE, as somebody outside of the package would write it.

Kingma and Welling, https://arxiv.org/abs/1312.6114: the encoder and the decoder
maximise the evidence lower bound, eq. 10 with a Gaussian p(x|z) of variance ½.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.variants import Round, Variant

LATENT_DIM = 4


class Encoder(nn.Module):
  """Images to the mean and the logarithm of the variance of q(z|x)."""

  @nn.compact
  def __call__(self, images):
    x = nn.relu(nn.Conv(8, (3, 3), (2, 2))(images))
    x = nn.Dense(2 * LATENT_DIM)(x.reshape(len(x), -1))
    return x[:, :LATENT_DIM], x[:, LATENT_DIM:]


class Decoder(nn.Module):
  """Latents to images."""

  size: int = 8

  @nn.compact
  def __call__(self, latents):
    x = nn.relu(nn.Dense(32)(latents))
    x = nn.Dense(self.size**2)(x)
    return jnp.tanh(x).reshape(-1, self.size, self.size, 1)


def vae(beta=1.0):
  """The variant; `beta` is the factor of the divergence."""

  def loss(nets, batch, made, key):
    images = batch['images']
    mean, log_variance = nets['encoder'](images)
    noise = nets.draw(jax.random.normal, key, (LATENT_DIM,))
    drawn = nets['decoder'](mean + jnp.exp(log_variance / 2) * noise)
    error = jnp.sum((images - drawn) ** 2, (1, 2, 3)).mean()
    divergence = 0.5 * jnp.sum(
      jnp.exp(log_variance) + mean**2 - 1 - log_variance, 1
    )
    value = error + nets.hyperparameters['beta'] * divergence.mean()
    return value, {'loss': value, 'error': error}

  def examples(batch, key):
    latents = jax.random.normal(key, (len(batch['images']), LATENT_DIM))
    return {'encoder': (batch['images'],), 'decoder': (latents,)}

  def inputs(keys, indices):
    return (jax.vmap(lambda k: jax.random.normal(k, (LATENT_DIM,)))(keys),)

  return Variant(
    modules={'encoder': Encoder(), 'decoder': Decoder()},
    prefixes={'encoder': 'e', 'decoder': 'd'},
    examples=examples,
    rounds=(Round(('encoder', 'decoder'), loss),),
    delivered='decoder',
    see_images=('encoder',),
    inputs=inputs,
    averaged=('decoder',),
    hyperparameters={'beta': beta},
  )
