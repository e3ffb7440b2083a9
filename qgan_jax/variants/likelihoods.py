"""How likely an image is, given what a decoder draws: pure functions.

Each is (images, drawn, noise) → log p(image | drawn) in nats, [B]. Images and
what is drawn are [B, H, W, C] in [−1, 1], bytes k as k/127.5 − 1.
"""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

Array = jax.Array
Likelihood = Callable[[Array, Array, Array], Array]
# A pixel's probability is that far from 0 and from 1: its logarithm is finite.
_EDGE = 1e-5


def _sum(x: Array) -> Array:
  return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def bernoulli(images: Array, drawn: Array, noise: Array) -> Array:
  """Every pixel is white with the probability that is drawn, or else black.

  Of grey images it is the mean over those that come out when each pixel is
  made white with its own grey as the probability, the images of Burda et al.,
  https://arxiv.org/abs/1509.00519, section 5.
  """
  del noise
  white = (images + 1) / 2
  p = _EDGE + (1 - 2 * _EDGE) * (drawn + 1) / 2
  return _sum(white * jnp.log(p) + (1 - white) * jnp.log1p(-p))


def gaussian(images: Array, drawn: Array, noise: Array) -> Array:
  """Bytes around what is drawn, with `noise` as the standard deviation.

  The density in the middle of a byte's interval times its width, 2/255.
  """
  width = math.log(2 / 255) - 0.5 * math.log(2 * math.pi) - jnp.log(noise)
  return _sum(width - jnp.square((images - drawn) / noise) / 2)


LIKELIHOODS: dict[str, Likelihood] = {
  'bernoulli': bernoulli,
  'gaussian': gaussian,
}


def kl_to_normal(mean: Array, log_variance: Array) -> Array:
  """KL(N(mean, exp(log_variance)) ‖ N(0, 1)) in nats, [B, D] → [B].

  Kingma and Welling, https://arxiv.org/abs/1312.6114, appendix B.
  """
  return 0.5 * _sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance)
