"""Likelihoods of images, given a decoder's output: pure functions.

Each is (images, drawn, noise) → log p(image | drawn) in nats, [B]. Images and
drawn images are [B, H, W, C] in [−1, 1], with k/127.5 − 1 for byte k.
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
  """Each pixel is white with the probability that is drawn, or else black.

  For a grey image, it is the mean over all black and white images that result
  if each pixel is made white with its own grey as the probability, as in Burda
  et al., https://arxiv.org/abs/1509.00519, section 5.
  """
  del noise
  white = (images + 1) / 2
  p = _EDGE + (1 - 2 * _EDGE) * (drawn + 1) / 2
  return _sum(white * jnp.log(p) + (1 - white) * jnp.log1p(-p))


def gaussian(images: Array, drawn: Array, noise: Array) -> Array:
  """Normal distribution around the drawn image, with deviation `noise`.

  The probability of a byte is the density in the middle of its interval, times
  the interval's width, 2/255.
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
