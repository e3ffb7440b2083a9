"""The last layer of an encoder: from features to a normal distribution."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Dtype = Any


class Posterior(nn.Module):
  """Mean and logarithm of the variance of latents, from features.

  Kingma and Welling, https://arxiv.org/abs/1312.6114, appendix C.2.

  Attributes:
    latent_dim: length of a latent.
    num_classes: whose labels join the features; 0 for none.
    dtype: of the arithmetic.
  """

  latent_dim: int
  num_classes: int = 0
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, labels: Array | None) -> tuple[Array, Array]:
    """Maps features [B, H, W, C], and labels [B], to two [B, latent_dim]."""
    features = 2 * self.latent_dim
    y = nn.DenseGeneral(
      features, axis=(-3, -2, -1), dtype=self.dtype, name='features'
    )(x)
    if self.num_classes:
      coded = jax.nn.one_hot(labels, self.num_classes, dtype=x.dtype)
      y += nn.Dense(features, use_bias=False, dtype=self.dtype, name='classes')(
        coded
      )
    mean, log_variance = jnp.split(y.astype(jnp.float32), 2, -1)
    return mean, log_variance
