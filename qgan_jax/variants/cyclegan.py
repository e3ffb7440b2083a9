"""CycleGAN: images to images, learned from two sets without pairs."""

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

# By which networks of a family it is made.
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
  """A generator that makes of an image of one kind one of another kind.

  One generator makes targets of inputs, and another inputs of targets. Each
  minimises the GAN's loss against the discriminator of what it makes, and both
  together `cycle_weight` times the mean absolute difference between an image
  and what comes back of it through the two. The source: Zhu et al.,
  https://arxiv.org/abs/1703.10593, eq. 3. The discriminators see the fakes of
  the step alone, and not the fifty before, as in its section 4.

  No term compares an input with the target that it shares a batch's row with,
  so that rows may hold any two.

  Args:
    generator: images in [−1, 1], [B, H, W, input_channels], → images
      [B, H, W, C] in the same range. It is what is delivered.
    back_generator: the other way.
    discriminator: of targets, [B, H, W, C] → logits, [B] or one for each
      patch, [B, h, w].
    back_discriminator: of inputs.
    input_channels: how many of the channels of a batch's images are the
      input's: the first. The others are the target's.
    cycle_weight: factor of the absolute difference.
    loss: a name in `losses.LOSSES`, or a `Loss`.
    penalty: of the discriminators' gradients, a name in `losses.PENALTIES`, a
      function, or None. Logits of an image's patches are averaged for it.
    penalty_weight: its factor; that of its paper if None.
    penalty_fraction: share of the batch that the penalty is computed on.
    d_steps: updates of the discriminators for one of the generators.
    flip: whether rows are mirrored, left to right, half of the time.

  Returns:
    The variant; its networks are named like the arguments.

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
