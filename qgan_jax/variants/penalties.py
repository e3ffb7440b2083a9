"""A penalty on a discriminator's gradient, as a term of its loss."""

import jax
import jax.numpy as jnp

from qgan_jax.variants.base import Array, Call, Nets
from qgan_jax.variants.losses import PENALTIES, Penalty, PENALTY_WEIGHTS
from qgan_jax.variants.named import named


def penalty_function(
  penalty: str | Penalty | None, weight: float | None
) -> tuple[Penalty | None, float]:
  """A penalty and its factor.

  Args:
    penalty: a name in `losses.PENALTIES`, a function, or None or 'none'.
    weight: the factor. None means that of the penalty's paper, or 1 for a
      function.

  Raises:
    ValueError: there is no such penalty.
  """
  if penalty is None or penalty == 'none':
    return None, 1.0 if weight is None else weight
  if isinstance(penalty, str):
    found: Penalty = named(PENALTIES, 'penalty', penalty)
    return found, PENALTY_WEIGHTS[penalty] if weight is None else weight
  return penalty, 1.0 if weight is None else weight


def penalty_of(
  nets: Nets,
  penalty: Penalty,
  fraction: float,
  judge: Call,
  real: tuple[Array, Array | None],
  fake: tuple[Array, Array | None],
  key: Array,
) -> Array:
  """The mean penalty over a share of the batch.

  Args:
    nets: the networks.
    penalty: of D's gradient.
    fraction: share of the batch.
    judge: (images, labels) → logits; it updates nothing.
    real: images, and labels or None.
    fake: likewise.
    key: for the penalty's random numbers.
  """
  count, mean = nets.first(fraction)
  labels = [part[1][:count] for part in (real, fake) if part[1] is not None]

  def logits(images: Array) -> Array:
    if not labels:
      return judge(images, None)
    return judge(images, jnp.concatenate(labels)[: len(images)])

  penalties = penalty(
    logits,
    real[0][:count],
    fake[0][:count],
    nets.draw(jax.random.uniform, key, (1, 1, 1), count),
  )
  return mean(penalties)
