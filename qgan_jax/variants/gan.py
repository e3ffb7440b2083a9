"""The GAN: a generator and a discriminator."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.variants.adversarial import judged, loss_function, settings_of
from qgan_jax.variants.augmentation import (
  adapt,
  ADAPTED,
  AUGMENTATIONS,
  IMAGES,
  mirror,
  TARGET,
)
from qgan_jax.variants.base import (
  Array,
  Batch,
  Nets,
  Round,
  unchanged,
  Variant,
)
from qgan_jax.variants.latents import labels_of, latent_inputs
from qgan_jax.variants.losses import Loss, Penalty, SIGNED
from qgan_jax.variants.named import named
from qgan_jax.variants.penalties import penalty_function, penalty_of

# Its networks, and the name of each in a family of `models`.
CLASSES = {'generator': 'Generator', 'discriminator': 'Discriminator'}


def gan(
  generator: nn.Module,
  discriminator: nn.Module,
  *,
  latent_dim: int,
  num_classes: int = 0,
  loss: str | Loss = 'nonsaturating',
  penalty: str | Penalty | None = None,
  penalty_weight: float | None = None,
  penalty_fraction: float = 1.0,
  d_steps: int = 1,
  flip: bool = False,
  augment: str = 'none',
  augment_target: float = TARGET,
  augment_images: float = IMAGES,
) -> Variant:
  """A GAN: a generator G that is trained against a discriminator D.

  In each step, D is updated `d_steps` times, each time on a new batch and new
  fakes; then G is updated once, through the fakes of D's last update. Source:
  Goodfellow et al., https://arxiv.org/abs/1406.2661.

  Args:
    generator: latents [B, latent_dim], and labels [B] if there are classes, →
      images in [−1, 1], [B, H, W, C].
    discriminator: images, and labels likewise, → logits [B].
    latent_dim: length of a latent, standard normal.
    num_classes: 0 for an unconditional GAN.
    loss: a name in `losses.LOSSES`, or a `Loss`.
    penalty: of D's gradient: a name in `losses.PENALTIES`, a function, or None.
    penalty_weight: factor of the penalty; None for that of `PENALTY_WEIGHTS`.
    penalty_fraction: share of the batch that the penalty is computed on. Its
      cost shrinks in proportion; the expected penalty stays the same.
    d_steps: updates of D for each update of G.
    flip: whether each real image is mirrored, left to right, with probability
      ½.
    augment: how all images that D sees are changed, real and fake: a name in
      `augmentation.AUGMENTATIONS`. The penalty then uses D's gradient at the
      changed images, as in the code of DiffAugment (`ns_r1_DiffAugment`).
    augment_target: for 'ada', the mean sign of D's logits of real images that
      is aimed at, at which D neither overfits nor underfits.
    augment_images: for 'ada', the number of images in which the probability of
      a change can go from 0 to 1.

  Returns:
    The variant; its networks are 'generator' and 'discriminator'.

  Raises:
    ValueError: there is no such loss, penalty or augmentation; or 'ada' is used
      with a loss for which the sign of a logit has no meaning.
  """
  both = loss_function(loss)
  of_gradient, penalty_weight = penalty_function(penalty, penalty_weight)
  change = named(AUGMENTATIONS, 'augment', augment)
  adaptive = augment == 'ada'
  if adaptive and not both.signed:
    raise ValueError(
      'augment=ada follows the signs of logits, which mean nothing with this '
      f'loss; take one of {", ".join(SIGNED)}, or augment=diffaugment'
    )

  def examples(batch, key):
    images = batch['images']
    labels = labels_of(batch, num_classes)
    latents = jax.random.normal(key, (len(images), latent_dim))
    numbers_key = jax.random.fold_in(key, 0)
    numbers = jax.random.uniform(numbers_key, (len(images), change.numbers))
    images = change.apply(images, numbers, 1.0)
    return {'generator': (latents, labels), 'discriminator': (images, labels)}

  def seen(nets: Nets, images: Array, key: Array) -> Array:
    """Images as D sees them."""
    if augment == 'none':
      return images
    numbers = nets.draw(jax.random.uniform, key, (change.numbers,))
    p = nets.hyperparameters['augment_p'] if adaptive else 1.0
    return change.apply(images, numbers, p)

  def fakes(nets: Nets, batch: Batch, key: Array):
    del batch
    latents_key, labels_key = jax.random.split(key)
    latents = nets.draw(jax.random.normal, latents_key, (latent_dim,))
    labels = None
    if num_classes:
      labels = nets.draw(
        lambda key, shape: jax.random.randint(key, shape, 0, num_classes),
        labels_key,
      )
    return {'images': nets['generator'](latents, labels), 'labels': labels}

  def d_loss(nets: Nets, batch: Batch, fake, key: Array):
    judge = nets['discriminator']
    labels = labels_of(batch, num_classes)
    real_images = seen(nets, batch['images'], jax.random.fold_in(key, 0))
    fake_images = seen(nets, fake['images'], jax.random.fold_in(key, 1))
    real_logits = judge(real_images, labels)
    fake_logits = judge(fake_images, fake['labels'])
    value, metrics = judged(both, real_logits, fake_logits)
    if adaptive:
      metrics['d_real_sign'] = jnp.sign(real_logits).mean()
      metrics['augment_p'] = nets.hyperparameters['augment_p']
    if of_gradient is not None:
      metrics['penalty'] = penalty_of(
        nets,
        of_gradient,
        penalty_fraction,
        nets.frozen('discriminator'),
        (real_images, labels),
        (fake_images, fake['labels']),
        key,
      )
      value += nets.hyperparameters['penalty_weight'] * metrics['penalty']
    return value, metrics

  def g_loss(nets: Nets, batch: Batch, fake, key: Array):
    judge = nets['discriminator']
    fake_images = seen(nets, fake['images'], jax.random.fold_in(key, 0))
    logits = judge(fake_images, fake['labels'])
    if both.relativistic:
      labels = labels_of(batch, num_classes)
      real_images = seen(nets, batch['images'], jax.random.fold_in(key, 1))
      real_logits = judge(real_images, labels)
      value = both.generator(logits, real_logits)
    else:
      value = both.generator(logits)
    return value, {'g_loss': value}

  return Variant(
    modules={'generator': generator, 'discriminator': discriminator},
    prefixes={'generator': 'g', 'discriminator': 'd'},
    examples=examples,
    rounds=(
      Round(('discriminator',), d_loss),
      Round(('generator',), g_loss),
    ),
    delivered='generator',
    # What is augmented has values between those of bytes, and outside.
    see_images=('discriminator',) if augment == 'none' else (),
    inputs=latent_inputs(latent_dim, num_classes),
    prepare=mirror if flip else unchanged,
    make=fakes,
    sources=('generator',),
    repeats=d_steps,
    averaged=('generator',),
    hyperparameters={
      'penalty_weight': penalty_weight,
      **(
        {'augment_target': augment_target, 'augment_images': augment_images}
        if adaptive
        else {}
      ),
    },
    adapted=ADAPTED if adaptive else {},
    adapt=adapt if adaptive else None,
    penalized=('discriminator',) if of_gradient is not None else (),
    settings={
      **settings_of(loss, penalty, penalty_fraction),
      'latent_dim': latent_dim,
      'num_classes': num_classes,
      **({'flip': True} if flip else {}),
      **({'augment': augment} if augment != 'none' else {}),
    },
  )
