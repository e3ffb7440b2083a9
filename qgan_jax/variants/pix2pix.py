"""pix2pix: translates images to images, learned from pairs."""

import flax.linen as nn
import jax.numpy as jnp

from qgan_jax.variants.adversarial import (
  judged,
  loss_function,
  patch_penalty,
  settings_of,
)
from qgan_jax.variants.augmentation import mirror
from qgan_jax.variants.base import (
  Array,
  Batch,
  Nets,
  Round,
  unchanged,
  Variant,
)
from qgan_jax.variants.losses import Loss, Penalty
from qgan_jax.variants.penalties import penalty_function

# Its networks, and the name of each in a family of `models`.
CLASSES = {'generator': 'Generator', 'discriminator': 'Discriminator'}


def pix2pix(
  generator: nn.Module,
  discriminator: nn.Module,
  *,
  input_channels: int,
  l1_weight: float = 100.0,
  loss: str | Loss = 'nonsaturating',
  penalty: str | Penalty | None = None,
  penalty_weight: float | None = None,
  penalty_fraction: float = 1.0,
  d_steps: int = 1,
  flip: bool = False,
) -> Variant:
  """pix2pix: a generator G that translates an image into its pair's target.

  G minimises the GAN's loss plus `l1_weight` times the mean absolute difference
  between its output and the target. D learns to tell pairs of an input and its
  target from pairs of an input and G's output. Source: Isola et al.,
  https://arxiv.org/abs/1611.07004, eq. 4. Any noise in G is part of its module,
  such as dropout; images that are scored or delivered are made without it.

  Args:
    generator: images in [−1, 1], [B, H, W, input_channels], → images
      [B, H, W, C] in the same range.
    discriminator: pairs, [B, H, W, input_channels + C], → logits, [B] or one
      for each patch, [B, h, w].
    input_channels: how many channels of a batch's images are the input: the
      first ones. The other channels are the target.
    l1_weight: factor of the absolute difference.
    loss: a name in `losses.LOSSES`, or a `Loss`.
    penalty: of D's gradient with respect to a pair: a name in
      `losses.PENALTIES`, a function, or None. D's logits of an image's patches
      are averaged for it.
    penalty_weight: factor of the penalty; None for that of `PENALTY_WEIGHTS`.
    penalty_fraction: share of the batch that the penalty is computed on.
    d_steps: updates of D for each update of G.
    flip: whether each pair is mirrored, left to right, with probability ½.

  Returns:
    The variant; its networks are 'generator' and 'discriminator'.

  Raises:
    ValueError: there is no such loss or penalty.
  """
  both = loss_function(loss)
  of_gradient, penalty_weight = penalty_function(penalty, penalty_weight)

  def split(batch: Batch) -> tuple[Array, Array]:
    """(inputs, targets)."""
    images = batch['images']
    return images[..., :input_channels], images[..., input_channels:]

  def examples(batch, key):
    del key
    inputs, _ = split(batch)
    return {'generator': (inputs,), 'discriminator': (batch['images'],)}

  def fakes(nets: Nets, batch: Batch, key: Array):
    del key
    inputs, _ = split(batch)
    drawn = nets['generator'](inputs)
    return {'images': drawn, 'pairs': jnp.concatenate([inputs, drawn], -1)}

  def d_loss(nets: Nets, batch: Batch, fake, key: Array):
    judge = nets['discriminator']
    real_logits, fake_logits = judge(batch['images']), judge(fake['pairs'])
    value, metrics = judged(both, real_logits, fake_logits)
    if of_gradient is not None:
      metrics['penalty'] = patch_penalty(
        nets,
        'discriminator',
        of_gradient,
        penalty_fraction,
        batch['images'],
        fake['pairs'],
        key,
      )
      value += nets.hyperparameters['penalty_weight'] * metrics['penalty']
    return value, metrics

  def g_loss(nets: Nets, batch: Batch, fake, key: Array):
    del key
    judge = nets['discriminator']
    logits = [judge(fake['pairs'])]
    if both.relativistic:
      logits.append(judge(batch['images']))
    _, targets = split(batch)
    difference = jnp.abs(targets - fake['images']).mean()
    fooled = both.generator(*logits)
    value = fooled + nets.hyperparameters['l1_weight'] * difference
    return value, {'g_loss': fooled, 'l1': difference}

  return Variant(
    modules={'generator': generator, 'discriminator': discriminator},
    prefixes={'generator': 'g', 'discriminator': 'd'},
    examples=examples,
    rounds=(
      Round(('discriminator',), d_loss),
      Round(('generator',), g_loss),
    ),
    delivered='generator',
    see_images=('generator', 'discriminator'),
    input_channels=input_channels,
    prepare=mirror if flip else unchanged,
    make=fakes,
    sources=('generator',),
    repeats=d_steps,
    averaged=('generator',),
    hyperparameters={'l1_weight': l1_weight, 'penalty_weight': penalty_weight},
    penalized=('discriminator',) if of_gradient is not None else (),
    settings={
      **settings_of(loss, penalty, penalty_fraction),
      **({'flip': True} if flip else {}),
    },
  )
