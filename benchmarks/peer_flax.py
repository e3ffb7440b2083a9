"""The benchmark's networks and step as one writes them in plain Flax.

`nn.ConvTranspose` and `nn.Conv` on XLA's own convolutions, `jax.jit`, Optax.
The parameter trees are those of `qgan_jax.models.dcgan`, whose logit is not
flattened first either.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qgan_jax.models.dcgan import stage_sizes

PyTree = Any


class Generator(nn.Module):
  """Latents [B, latent_dim] to images [B, S, S, 1]."""

  image_size: int
  channels: int
  dtype: Any

  @nn.compact
  def __call__(self, latents: jax.Array) -> jax.Array:
    """Draws images."""
    sizes = [side for side, _ in stage_sizes(self.image_size)[-2::-1]]
    x = nn.ConvTranspose(
      self.channels << (len(sizes) - 1),
      (4, 4),
      padding='VALID',
      use_bias=False,
      dtype=self.dtype,
      name='project',
    )(latents[:, None, None, :])
    for i, size in enumerate(sizes):
      last = i == len(sizes) - 1
      features = 1 if last else self.channels << (len(sizes) - 2 - i)
      x = nn.relu(nn.GroupNorm(None, group_size=8, dtype=self.dtype)(x))
      x = nn.ConvTranspose(
        features, (4, 4), (2, 2), dtype=self.dtype, name=f'up{i}'
      )(x)
      x = x[:, :size, :size]
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """Images [B, S, S, 1] to logits [B]."""

  channels: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Judges images."""
    for i in range(len(stage_sizes(x.shape[1])) - 1):
      x = nn.Conv(
        self.channels << i, (4, 4), (2, 2), dtype=self.dtype, name=f'down{i}'
      )(x)
      x = nn.leaky_relu(x, 0.2)
    logit = nn.DenseGeneral(1, (-3, -2, -1), dtype=self.dtype, name='logit')
    logits = logit(x)[:, 0]
    return logits.astype(jnp.float32)


def make_step(
  generator: nn.Module,
  discriminator: nn.Module,
  g_params: PyTree,
  d_params: PyTree,
  images: np.ndarray,
  *,
  latent_dim: int,
  learning_rate: float,
  b1: float,
  b2: float,
  ema_decay: float,
) -> Callable[[], None]:
  """Makes a function that takes one training step and waits for it.

  Args:
    generator: G.
    discriminator: D.
    g_params: its parameters at the start.
    d_params: its parameters at the start.
    images: the batch, uint8 [B, S, S, 1].
    latent_dim: length of a latent.
    learning_rate: Adam's.
    b1: Adam's.
    b2: Adam's.
    ema_decay: of the moving average of G's parameters.

  Returns:
    The function.
  """
  optimizer = optax.adam(learning_rate, b1=b1, b2=b2)
  batch = jnp.asarray(images)

  def draw(params: PyTree, latents: jax.Array) -> Any:
    return generator.apply({'params': params}, latents)

  def judge(params: PyTree, images: jax.Array) -> Any:
    return discriminator.apply({'params': params}, images)

  @jax.jit
  def init(g: PyTree, d: PyTree) -> PyTree:
    average = jax.tree.map(jnp.copy, g)
    opts = optimizer.init(g), optimizer.init(d)
    return jax.random.PRNGKey(0), g, d, *opts, average

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state: PyTree, images: jax.Array) -> tuple[PyTree, jax.Array]:
    key, g, d, g_opt, d_opt, average = state
    key, latents_key = jax.random.split(key)
    latents = jax.random.normal(latents_key, (len(images), latent_dim))
    real = images.astype(jnp.float32) / 127.5 - 1
    fake = draw(g, latents)

    def d_loss(d: PyTree) -> jax.Array:
      real_loss = nn.softplus(-judge(d, real)).mean()
      return real_loss + nn.softplus(judge(d, fake)).mean()

    d_value, grads = jax.value_and_grad(d_loss)(d)
    updates, d_opt = optimizer.update(grads, d_opt)
    d = optax.apply_updates(d, updates)

    # The same latents and parameters: XLA runs the forward pass once.
    def g_loss(g: PyTree) -> jax.Array:
      return nn.softplus(-judge(d, draw(g, latents))).mean()

    g_value, grads = jax.value_and_grad(g_loss)(g)
    updates, g_opt = optimizer.update(grads, g_opt)
    g = optax.apply_updates(g, updates)
    average = optax.incremental_update(g, average, 1 - ema_decay)
    losses = jnp.stack([d_value, g_value])
    return (key, g, d, g_opt, d_opt, average), losses

  state = init(g_params, d_params)

  def step() -> None:
    nonlocal state
    state, losses = update(state, batch)
    jax.block_until_ready((state, losses))

  return step
