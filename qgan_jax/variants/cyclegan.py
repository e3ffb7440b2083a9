"""CycleGAN: translates images between two sets, learned without pairs."""

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
  Metrics,
  Nets,
  Round,
  unchanged,
  Variant,
)
from qgan_jax.variants.losses import Loss, Penalty
from qgan_jax.variants.penalties import penalty_function

# Its networks, and the name of each in a family of `models`.
CLASSES = {
  'generator': 'Generator',
  'back_generator': 'Generator',
  'discriminator': 'Discriminator',
  'back_discriminator': 'Discriminator',
}
# Each generator with the discriminator of what it makes.
_SIDES = (
  ('generator', 'discriminator'),
  ('back_generator', 'back_discriminator'),
)


def cyclegan(
  generator: nn.Module,
  back_generator: nn.Module,
  discriminator: nn.Module,
  back_discriminator: nn.Module,
  *,
  input_channels: int,
  cycle_weight: float = 10.0,
  loss: str | Loss = 'least_squares',
  penalty: str | Penalty | None = None,
  penalty_weight: float | None = None,
  penalty_fraction: float = 1.0,
  d_steps: int = 1,
  flip: bool = False,
) -> Variant:
  """CycleGAN: two generators that translate between two sets of images.

  One generator makes targets from inputs, the other inputs from targets. Each
  minimises the GAN's loss against the discriminator of its outputs. Both also
  minimise `cycle_weight` times the mean absolute difference between an image
  and its translation back and forth. Source: Zhu et al.,
  https://arxiv.org/abs/1703.10593, eq. 3. Unlike in its section 4,
  discriminators see only the fakes of the current step, and not the last fifty.

  A row of a batch holds one input and one target. No loss compares the two, so
  they may be any two images.

  Args:
    generator: images in [−1, 1], [B, H, W, input_channels], → images
      [B, H, W, C] in the same range. This network is delivered.
    back_generator: the same in the other direction.
    discriminator: of targets, [B, H, W, C] → logits, [B] or one for each patch,
      [B, h, w].
    back_discriminator: the same, of inputs.
    input_channels: how many channels of a batch's images are the input: the
      first ones. The other channels are the target.
    cycle_weight: factor of the absolute difference.
    loss: a name in `losses.LOSSES`, or a `Loss`.
    penalty: of the discriminators' gradients: a name in `losses.PENALTIES`, a
      function, or None. Logits of an image's patches are averaged for it.
    penalty_weight: factor of the penalty; None for that of `PENALTY_WEIGHTS`.
    penalty_fraction: share of the batch that the penalty is computed on.
    d_steps: updates of the discriminators for each update of the generators.
    flip: whether each row is mirrored, left to right, with probability ½.

  Returns:
    The variant; its networks have the names of the arguments.

  Raises:
    ValueError: there is no such loss or penalty.
  """
  both = loss_function(loss)
  of_gradient, penalty_weight = penalty_function(penalty, penalty_weight)

  def split(batch: Batch) -> dict[str, Array]:
    """What each generator is called with; the other one makes the like."""
    images = batch['images']
    return {
      'generator': images[..., :input_channels],
      'back_generator': images[..., input_channels:],
    }

  def real_of(batch: Batch) -> dict[str, Array]:
    """Real images of what each generator makes."""
    given = split(batch)
    return {
      'generator': given['back_generator'],
      'back_generator': given['generator'],
    }

  def examples(batch, key):
    del key
    given, real = split(batch), real_of(batch)
    return {
      name: (images,)
      for g, d in _SIDES
      for name, images in ((g, given[g]), (d, real[g]))
    }

  def fakes(nets: Nets, batch: Batch, key: Array):
    del key
    return {name: nets[name](images) for name, images in split(batch).items()}

  def d_loss(nets: Nets, batch: Batch, fake, key: Array):
    real = real_of(batch)
    value = jnp.zeros(())
    metrics: Metrics = {}
    for g, d in _SIDES:
      own, told = judged(both, nets[d](real[g]), nets[d](fake[g]))
      if of_gradient is not None:
        told['penalty'] = patch_penalty(
          nets, d, of_gradient, penalty_fraction, real[g], fake[g], key
        )
        own += nets.hyperparameters['penalty_weight'] * told['penalty']
      value += own
      metrics |= {_of(d, metric): x for metric, x in told.items()}
    return value, metrics

  def g_loss(nets: Nets, batch: Batch, fake, key: Array):
    del key
    given, real = split(batch), real_of(batch)
    value = jnp.zeros(())
    metrics: Metrics = {}
    for (g, d), (back, _) in zip(_SIDES, _SIDES[::-1], strict=True):
      logits = [nets[d](fake[g])]
      if both.relativistic:
        logits.append(nets[d](real[g]))
      fooled = both.generator(*logits)
      cycle = jnp.abs(nets[back](fake[g]) - given[g]).mean()
      value += fooled + nets.hyperparameters['cycle_weight'] * cycle
      metrics |= {_of(g, 'g_loss'): fooled, _of(g, 'cycle'): cycle}
    return value, metrics

  return Variant(
    modules={
      'generator': generator,
      'back_generator': back_generator,
      'discriminator': discriminator,
      'back_discriminator': back_discriminator,
    },
    prefixes={
      'generator': 'g',
      'back_generator': 'back_g',
      'discriminator': 'd',
      'back_discriminator': 'back_d',
    },
    examples=examples,
    rounds=(
      Round(('discriminator', 'back_discriminator'), d_loss),
      Round(('generator', 'back_generator'), g_loss),
    ),
    delivered='generator',
    see_images=tuple(CLASSES),
    input_channels=input_channels,
    prepare=mirror if flip else unchanged,
    make=fakes,
    sources=('generator', 'back_generator'),
    repeats=d_steps,
    averaged=('generator',),
    hyperparameters={
      'cycle_weight': cycle_weight,
      'penalty_weight': penalty_weight,
    },
    penalized=('discriminator', 'back_discriminator')
    if of_gradient is not None
    else (),
    settings={
      **settings_of(loss, penalty, penalty_fraction),
      **({'flip': True} if flip else {}),
    },
  )


def _of(network: str, metric: str) -> str:
  """A metric's name, which says the direction."""
  return f'back_{metric}' if network.startswith('back') else metric
