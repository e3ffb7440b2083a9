"""GAN losses and gradient penalties: pure functions of logits and images."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Loss(NamedTuple):
  """A GAN loss: what discriminator and generator minimise.

  Attributes:
    discriminator: (logits of real images [B], logits of fakes [B]) → scalar.
    generator: (logits of fakes [B]) → scalar. For a relativistic loss, (logits
      of fakes, logits of real images) → scalar.
    relativistic: whether the generator's loss compares fakes with real images.
    signed: whether a logit above 0 means that an image is judged to be real.
  """

  discriminator: Callable[[Array, Array], Array]
  generator: Callable[..., Array]
  relativistic: bool = False
  signed: bool = False


# Goodfellow et al., https://arxiv.org/abs/1406.2661, section 3.
nonsaturating = Loss(
  lambda real, fake: (
    jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
  ),
  lambda fake: jnp.mean(jax.nn.softplus(-fake)),
  signed=True,
)
# Mao et al., https://arxiv.org/abs/1611.04076, eq. 9 (a = 0, b = c = 1).
least_squares = Loss(
  lambda real, fake: (
    0.5 * jnp.mean(jnp.square(real - 1)) + 0.5 * jnp.mean(jnp.square(fake))
  ),
  lambda fake: 0.5 * jnp.mean(jnp.square(fake - 1)),
)
# Lim and Ye, https://arxiv.org/abs/1705.02894.
hinge = Loss(
  lambda real, fake: (
    jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))
  ),
  lambda fake: -jnp.mean(fake),
  signed=True,
)
# Arjovsky et al., https://arxiv.org/abs/1701.07875.
wasserstein = Loss(
  lambda real, fake: jnp.mean(fake) - jnp.mean(real),
  lambda fake: -jnp.mean(fake),
)
# Jolicoeur-Martineau, https://arxiv.org/abs/1807.00734, section 4.1, of pairs;
# the loss of R3GAN, https://arxiv.org/abs/2501.05441, eq. 2.
relativistic = Loss(
  lambda real, fake: jnp.mean(jax.nn.softplus(fake - real)),
  lambda fake, real: jnp.mean(jax.nn.softplus(real - fake)),
  relativistic=True,
)

LOSSES = {
  'nonsaturating': nonsaturating,
  'least_squares': least_squares,
  'hinge': hinge,
  'wasserstein': wasserstein,
  'relativistic': relativistic,
}
SIGNED = tuple(name for name, loss in LOSSES.items() if loss.signed)

Logits = Callable[[Array], Array]
# Takes D, real and generated images [B, H, W, C], and random numbers in [0, 1),
# [B, 1, 1, 1]; returns the penalty of each image, [B]. Given B images, D takes
# them to have the labels of the real ones; given 2B, it takes the first half as
# real and the second as generated.
Penalty = Callable[[Logits, Array, Array, Array], Array]


def _squared_norms(logits: Logits, images: Array) -> Array:
  """‖∇D(x)‖² of every image, [B]."""
  gradient = jax.grad(lambda x: jnp.sum(logits(x)))(images)
  return jnp.sum(jnp.square(gradient), axis=(1, 2, 3))


def r1(logits: Logits, real: Array, fake: Array, mix: Array) -> Array:
  """½ ‖∇D(x)‖² at real images; Mescheder et al., 1801.04406, eq. 9."""
  del fake, mix
  return 0.5 * _squared_norms(logits, real)


def r1_r2(logits: Logits, real: Array, fake: Array, mix: Array) -> Array:
  """½ ‖∇D(x)‖² at real images and at fakes; R3GAN, 2501.05441, eq. 3 and 4."""
  del mix
  squares = _squared_norms(logits, jnp.concatenate([real, fake]))
  return 0.5 * squares.reshape(2, -1).sum(0)


def gradient_penalty(
  logits: Logits, real: Array, fake: Array, mix: Array
) -> Array:
  """(‖∇D(x)‖ − 1)² between real and fake; Gulrajani et al., 1704.00028."""
  squared = _squared_norms(logits, mix * real + (1 - mix) * fake)
  # The square root has no derivative at 0, which a constant D would reach.
  return jnp.square(jnp.sqrt(squared + 1e-12) - 1)


PENALTIES: dict[str, Penalty] = {
  'r1': r1,
  'r1_r2': r1_r2,
  'gradient_penalty': gradient_penalty,
}
# The weights that are taken where none is given: of γ of Mescheder et al.,
# https://arxiv.org/abs/1801.04406 (their own code takes 10), and of λ of
# Gulrajani et al., https://arxiv.org/abs/1704.00028, which is theirs.
PENALTY_WEIGHTS = {
  'none': 0.0,
  'r1': 1.0,
  'r1_r2': 1.0,
  'gradient_penalty': 10.0,
}
