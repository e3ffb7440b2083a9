"""The variational autoencoder: an encoder and a decoder with one loss."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.variants.augmentation import mirror
from qgan_jax.variants.base import (
  Array,
  Batch,
  Call,
  Nets,
  Round,
  unchanged,
  Variant,
)
from qgan_jax.variants.latents import labels_of, latent_inputs
from qgan_jax.variants.likelihoods import kl_to_normal, LIKELIHOODS
from qgan_jax.variants.named import named

# Its networks, and the name of each in a family of `models`.
CLASSES = {'encoder': 'Encoder', 'decoder': 'Generator'}
_SAMPLES = 32  # Latents of an image that its bounds are measured with.


def vae(
  encoder: nn.Module,
  decoder: nn.Module,
  *,
  latent_dim: int,
  num_classes: int = 0,
  beta: float = 1.0,
  likelihood: str = 'bernoulli',
  noise: float = 0.1,
  flip: bool = False,
) -> Variant:
  """A variational autoencoder (VAE): an encoder and a decoder.

  They maximise E[log p(x|z)] − β KL(q(z|x) ‖ N(0, 1)), which at β = 1 is a
  lower bound of log p(x), the ELBO. Sources: Kingma and Welling,
  https://arxiv.org/abs/1312.6114; for β, Higgins et al.,
  https://openreview.net/forum?id=Sy2fzU9gl.

  Args:
    encoder: images in [−1, 1], [B, H, W, C], and labels [B] if there are
      classes, → mean and logarithm of the variance of latents, [B, latent_dim]
      each.
    decoder: latents, and labels likewise, → images.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional VAE.
    beta: factor of the KL divergence.
    likelihood: p(image | decoder's output): a name in
      `likelihoods.LIKELIHOODS`.
    noise: standard deviation of a pixel, for 'gaussian'.
    flip: whether each image is mirrored, left to right, with probability ½.

  Returns:
    The variant; its networks are 'encoder' and 'decoder'.

  Raises:
    ValueError: there is no such likelihood.
  """
  log_likelihood = named(LIKELIHOODS, 'likelihood', likelihood)

  def examples(batch, key):
    latents = jax.random.normal(key, (len(batch['images']), latent_dim))
    labels = labels_of(batch, num_classes)
    return {'encoder': (batch['images'], labels), 'decoder': (latents, labels)}

  def loss(nets: Nets, batch: Batch, made, key: Array):
    del made
    images, labels = batch['images'], labels_of(batch, num_classes)
    mean, log_variance = nets['encoder'](images, labels)
    unit = nets.draw(jax.random.normal, key, (latent_dim,))
    drawn = nets['decoder'](mean + jnp.exp(log_variance / 2) * unit, labels)
    numbers = nets.hyperparameters
    fit = log_likelihood(images, drawn, numbers['noise']).mean()
    kl = kl_to_normal(mean, log_variance).mean()
    return numbers['beta'] * kl - fit, {
      'loss': numbers['beta'] * kl - fit,
      'elbo': fit - kl,
      'kl': kl,
      'reconstruction_error': jnp.square(images - drawn).mean(),
    }

  def measure(nets: Mapping[str, Call], numbers, batch: Batch, key: Array):
    """The ELBO, and a tighter bound by Burda et al., 1509.00519, eq. 8."""
    images, labels = batch['images'], labels_of(batch, num_classes)
    mean, log_variance = nets['encoder'](images, labels)

    def sampled(key: Array) -> tuple[Array, Array]:
      unit = jax.random.normal(key, mean.shape)
      latents = mean + jnp.exp(log_variance / 2) * unit
      drawn = nets['decoder'](latents, labels)
      fit = log_likelihood(images, drawn, numbers['noise'])
      # log N(z; 0, 1) − log q(z|x): what is common to both cancels.
      ratio = jnp.square(unit) - jnp.square(latents) + log_variance
      return fit, fit + 0.5 * ratio.sum(-1)

    fits, weights = jax.lax.map(sampled, jax.random.split(key, _SAMPLES))
    bound = jax.nn.logsumexp(weights, 0) - jnp.log(_SAMPLES)
    kl = kl_to_normal(mean, log_variance)
    drawn = nets['decoder'](mean, labels)
    return {
      'elbo': fits.mean(0) - kl,
      'importance_weighted_bound': bound,
      'kl': kl,
      'reconstruction_error': jnp.square(images - drawn).mean((1, 2, 3)),
    }

  return Variant(
    modules={'encoder': encoder, 'decoder': decoder},
    prefixes={'encoder': 'e', 'decoder': 'g'},
    examples=examples,
    rounds=(Round(('encoder', 'decoder'), loss),),
    delivered='decoder',
    see_images=('encoder',),
    inputs=latent_inputs(latent_dim, num_classes),
    prepare=mirror if flip else unchanged,
    averaged=('encoder', 'decoder'),
    measure=measure,
    hyperparameters={'beta': beta, 'noise': noise},
    settings={
      'likelihood': likelihood,
      'latent_dim': latent_dim,
      'num_classes': num_classes,
      **({'flip': True} if flip else {}),
    },
  )
