"""Shared by variants with a discriminator: losses by name, and metrics."""

from typing import Any

from qgan_jax.variants.base import Array, Nets
from qgan_jax.variants.losses import Loss, LOSSES, Penalty
from qgan_jax.variants.named import named
from qgan_jax.variants.penalties import penalty_of


def loss_function(loss: str | Loss) -> Loss:
  """The loss with this name in `losses.LOSSES`; a `Loss` is returned as it is.

  Raises:
    ValueError: there is no such loss.
  """
  return named(LOSSES, 'loss', loss) if isinstance(loss, str) else loss


def settings_of(
  loss: str | Loss, penalty: str | Penalty | None, penalty_fraction: float
) -> dict[str, Any]:
  """The part of `Variant.settings` that describes the loss.

  A loss or penalty that was not given by name is called 'own'.
  """
  return {
    'loss': loss if isinstance(loss, str) else 'own',
    'penalty': penalty if isinstance(penalty, str | None) else 'own',
    'penalty_fraction': penalty_fraction,
  }


def judged(
  loss: Loss, real: Array, fake: Array
) -> tuple[Array, dict[str, Array]]:
  """The discriminator's loss, and metrics of its logits to log.

  Args:
    loss: of both networks.
    real: logits of real images.
    fake: logits of fakes.
  """
  value = loss.discriminator(real, fake)
  return value, {
    'd_loss': value,
    'd_real': real.mean(),
    'd_fake': fake.mean(),
    'd_real_accuracy': (real > 0).mean(),
    'd_fake_accuracy': (fake < 0).mean(),
  }


def patch_penalty(
  nets: Nets,
  name: str,
  penalty: Penalty,
  fraction: float,
  real: Array,
  fake: Array,
  key: Array,
) -> Array:
  """The mean penalty of a discriminator that may judge patches of an image.

  Args:
    nets: the networks.
    name: of the discriminator. It judges images without labels, and its logits
      for one image are averaged.
    penalty: of its gradient.
    fraction: share of the batch to compute it on.
    real: images, [B, H, W, C].
    fake: likewise.
    key: for the penalty's random numbers.
  """

  def mean_logits(images: Array, _: None) -> Array:
    logits = nets.frozen(name)(images)
    return logits.reshape(len(images), -1).mean(1)

  return penalty_of(
    nets, penalty, fraction, mean_logits, (real, None), (fake, None), key
  )
