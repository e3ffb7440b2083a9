"""VAE-GAN: a VAE that compares images by a discriminator's features."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.variants.adversarial import loss_function, settings_of
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
from qgan_jax.variants.likelihoods import kl_to_normal
from qgan_jax.variants.losses import Loss, Penalty
from qgan_jax.variants.penalties import penalty_function, penalty_of

# Its networks, and the name of each in a family of `models`.
CLASSES = {
  'encoder': 'Encoder',
  'decoder': 'Generator',
  'discriminator': 'Discriminator',
}


def vae_gan(
  encoder: nn.Module,
  decoder: nn.Module,
  discriminator: nn.Module,
  *,
  latent_dim: int,
  num_classes: int = 0,
  beta: float = 1.0,
  gamma: float = 0.01,
  loss: str | Loss = 'nonsaturating',
  penalty: str | Penalty | None = None,
  penalty_weight: float | None = None,
  penalty_fraction: float = 1.0,
  flip: bool = False,
) -> Variant:
  """A VAE and a GAN that share the decoder.

  The discriminator D learns to tell real images from two kinds of fakes: what
  the decoder draws from standard normal latents, and from latents of real
  images. Let L be half the squared distance, in D's features, between an image
  and what is drawn from its latent. The encoder minimises β KL + L, and the
  decoder γ L plus the GAN's loss. Source: Larsen et al.,
  https://arxiv.org/abs/1512.09300, algorithm 1.

  Args:
    encoder: images in [−1, 1], [B, H, W, C], and labels [B] if there are
      classes, → mean and logarithm of the variance of latents, [B, latent_dim]
      each.
    decoder: latents, and labels likewise, → images.
    discriminator: images, and labels likewise, → (logits [B], features [B, …]).
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional variant.
    beta: factor of the KL divergence.
    gamma: factor of L in the decoder's loss.
    loss: a name in `losses.LOSSES`, or a `Loss`; not a relativistic one.
    penalty: of D's gradient: a name in `losses.PENALTIES`, a function, or None.
    penalty_weight: factor of the penalty; None for that of `PENALTY_WEIGHTS`.
    penalty_fraction: share of the batch that the penalty is computed on.
    flip: whether each image is mirrored, left to right, with probability ½.

  Returns:
    The variant; its networks are 'encoder', 'decoder' and 'discriminator'.

  Raises:
    ValueError: there is no such loss or penalty, or the loss is relativistic.
  """
  both = loss_function(loss)
  if both.relativistic:
    raise ValueError('loss=relativistic compares pairs, and here are no pairs')
  of_gradient, penalty_weight = penalty_function(penalty, penalty_weight)

  def examples(batch, key):
    images, labels = batch['images'], labels_of(batch, num_classes)
    latents = jax.random.normal(key, (len(images), latent_dim))
    return {
      'encoder': (images, labels),
      'decoder': (latents, labels),
      'discriminator': (images, labels),
    }

  def make(nets: Nets, batch: Batch, key: Array):
    labels = labels_of(batch, num_classes)
    mean, log_variance = nets['encoder'](batch['images'], labels)
    unit, latents = (
      nets.draw(jax.random.normal, k, (latent_dim,))
      for k in jax.random.split(key)
    )
    draw = nets['decoder']
    return {
      'kl': kl_to_normal(mean, log_variance),
      'again': draw(mean + jnp.exp(log_variance / 2) * unit, labels),
      'new': draw(latents, labels),
    }

  def d_loss(nets: Nets, batch: Batch, made, key: Array):
    judge, labels = nets['discriminator'], labels_of(batch, num_classes)
    real, _ = judge(batch['images'], labels)
    logits = {name: judge(made[name], labels)[0] for name in ('again', 'new')}
    value = sum(both.discriminator(real, fake) for fake in logits.values()) / 2
    metrics = {
      'd_loss': value,
      'd_real': real.mean(),
      'd_fake': logits['new'].mean(),
      'd_again': logits['again'].mean(),
    }
    if of_gradient is not None:
      metrics['penalty'] = penalty_of(
        nets,
        of_gradient,
        penalty_fraction,
        lambda images, labels: nets.frozen('discriminator')(images, labels)[0],
        (batch['images'], labels),
        (made['new'], labels),
        key,
      )
      value += nets.hyperparameters['penalty_weight'] * metrics['penalty']
    return value, metrics

  def distance(nets: Nets, batch: Batch, made) -> tuple[Array, Array]:
    """(L, logits of what is drawn from the images' latents)."""
    judge, labels = nets['discriminator'], labels_of(batch, num_classes)
    _, wanted = judge(batch['images'], labels)
    logits, found = judge(made['again'], labels)
    squares = jnp.square(wanted - found).reshape(len(logits), -1)
    return 0.5 * squares.sum(1).mean(), logits

  def e_loss(nets: Nets, batch: Batch, made, key: Array):
    del key
    error, _ = distance(nets, batch, made)
    kl = made['kl'].mean()
    value = nets.hyperparameters['beta'] * kl + error
    return value, {'e_loss': value, 'kl': kl, 'feature_error': error}

  def g_loss(nets: Nets, batch: Batch, made, key: Array):
    del key
    error, again = distance(nets, batch, made)
    new, _ = nets['discriminator'](made['new'], labels_of(batch, num_classes))
    fooled = (both.generator(again) + both.generator(new)) / 2
    value = nets.hyperparameters['gamma'] * error + fooled
    return value, {'g_loss': value}

  def measure(nets: Mapping[str, Call], numbers, batch: Batch, key: Array):
    del numbers, key
    images, labels = batch['images'], labels_of(batch, num_classes)
    mean, log_variance = nets['encoder'](images, labels)
    drawn = nets['decoder'](mean, labels)
    return {
      'kl': kl_to_normal(mean, log_variance),
      'reconstruction_error': jnp.square(images - drawn).mean((1, 2, 3)),
    }

  return Variant(
    modules={
      'encoder': encoder,
      'decoder': decoder,
      'discriminator': discriminator,
    },  # fmt: skip
    prefixes={'encoder': 'e', 'decoder': 'g', 'discriminator': 'd'},
    examples=examples,
    rounds=(
      Round(('discriminator',), d_loss),
      Round(('encoder',), e_loss),
      Round(('decoder',), g_loss),
    ),
    delivered='decoder',
    see_images=('encoder', 'discriminator'),
    inputs=latent_inputs(latent_dim, num_classes),
    prepare=mirror if flip else unchanged,
    make=make,
    sources=('encoder', 'decoder'),
    averaged=('encoder', 'decoder'),
    measure=measure,
    hyperparameters={
      'beta': beta,
      'gamma': gamma,
      'penalty_weight': penalty_weight,
    },  # fmt: skip
    penalized=('discriminator',) if of_gradient is not None else (),
    settings={
      **settings_of(loss, penalty, penalty_fraction),
      'latent_dim': latent_dim,
      'num_classes': num_classes,
      **({'flip': True} if flip else {}),
    },
  )
