"""What variants with a discriminator share: its loss, by name, and its logs."""

from typing import Any

from qgan_jax.variants.base import Array
from qgan_jax.variants.losses import Loss, LOSSES, Penalty
from qgan_jax.variants.named import named


def loss_function(loss: str | Loss) -> Loss:
  """A loss by its name in `losses.LOSSES`, or as it is.

  Raises:
    ValueError: there is no such loss.
  """
  return named(LOSSES, 'loss', loss) if isinstance(loss, str) else loss


def settings_of(
  loss: str | Loss, penalty: str | Penalty | None, penalty_fraction: float
) -> dict[str, Any]:
  """Of a variant's settings, those of its loss; what has no name is 'own'."""
  return {
    'loss': loss if isinstance(loss, str) else 'own',
    'penalty': penalty if isinstance(penalty, str | None) else 'own',
    'penalty_fraction': penalty_fraction,
  }


def judged(
  loss: Loss, real: Array, fake: Array
) -> tuple[Array, dict[str, Array]]:
  """The discriminator's loss, and what is logged of its logits.

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
