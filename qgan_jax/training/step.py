"""One training step of a GAN, (state, batch) → (state, metrics), pure.

D is updated `d_steps` times, then G once, through the fakes that the last of
D's updates has seen, then G's moving average. Both networks' weights and
activations are quantized on the way, with straight-through gradients to the
float master weights.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import optax

from qgan_jax.precision.activations import AxisGroups
from qgan_jax.precision.noise import shard_of
from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.losses import Loss, Penalty
from qgan_jax.training.network import computed_once, Network
from qgan_jax.training.state import (
  average_of,
  NetworkState,
  Trained,
  TrainState,
)

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]
Metrics = dict[str, PyTree]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def to_float(images: Array) -> Array:
  """uint8 images to float32 in [−1, 1]."""
  return images.astype(jnp.float32) / 127.5 - 1


def _finite(grads: Trained) -> dict[str, PyTree]:
  tree = grads.params
  if grads.learned:
    tree = {**tree, 'quantizers': grads.learned}
  return jax.tree.map(lambda x: jnp.isfinite(x).all(), tree)


def make_step(
  generator: Network,
  discriminator: Network,
  *,
  loss: Loss,
  latent_dim: int,
  num_classes: int = 0,
  penalty: Penalty | None = None,
  penalty_fraction: float = 1.0,
  schedule: Schedule | None = None,
  rate_at: optax.Schedule = lambda step: 1.0,
  axis_name: str | None = None,
  axis_groups: AxisGroups = None,
) -> Step:
  """Makes the step.

  Args:
    generator: G.
    discriminator: D.
    loss: what both minimise.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional GAN.
    penalty: of D's gradient, or None.
    penalty_fraction: share of the batch that it is computed on: a fraction
      costs a fraction, and its expectation is the same.
    schedule: of bits and sparsity; None for those of the state at every step.
      Where bits change, learned quantizers are fitted anew before the step, by
      `Refit`.
    rate_at: the share of their learning rates that the optimizers take at a
      step.
    axis_name: the mapped axis that the batch is sharded over, or None.
    axis_groups: its indices by member, where several members share it.

  Returns:
    A pure function of (state, batch). The batch holds 'images', uint8
    [d_steps, B, H, W, C], and where the GAN is conditional 'labels', int32
    [d_steps, B]; B is a shard's. Metrics are scalars over the global batch;
    of flags, 'finite' tells for each gradient tensor whether it was, and
    'halted' whether a value that was not has stopped training, then or before.
  """

  def mean(tree: PyTree) -> PyTree:
    if axis_name is None:
      return tree
    return lax.pmean(tree, axis_name, axis_index_groups=axis_groups)

  def forward(
    network: Network, *args: Any, call: int = 0, **kwargs: Any
  ) -> tuple[Array, NetworkState]:
    return network.run(
      *args, call=call, axis_name=axis_name, axis_groups=axis_groups, **kwargs
    )

  def shard(x: Array) -> Array:
    """This replica's part of what all of them drew alike."""
    if axis_name is None:
      return x
    index, num_shards = shard_of(axis_name, axis_groups)
    dealt = x.reshape(-1, num_shards, *x.shape[1:])
    return lax.dynamic_index_in_dim(dealt, index, axis=1, keepdims=False)

  def draw(key: Array, batch_size: int) -> tuple[Array, Array | None]:
    """Latents and labels of the fakes: the same whatever the shards."""
    latents_key, labels_key = jax.random.split(key)
    _, num_shards = shard_of(axis_name, axis_groups)
    total = batch_size * num_shards
    latents = shard(jax.random.normal(latents_key, (total, latent_dim)))
    if not num_classes:
      return latents, None
    return latents, shard(
      jax.random.randint(labels_key, (total,), 0, num_classes)
    )

  def d_loss(
    trained, d_state, real, real_labels, fake, fake_labels, weight, key, noise
  ):
    weights = discriminator.quantize(d_state, trained, noise)
    judge = functools.partial(
      forward,
      discriminator,
      weights=weights,
      learned=trained.learned,
      noise=noise,
    )
    real_logits, d_state = judge(d_state, real, real_labels, call=0)
    fake_logits, d_state = judge(d_state, fake, fake_labels, call=1)
    value = loss.discriminator(real_logits, fake_logits)
    metrics = {
      'd_loss': value,
      'd_real': real_logits.mean(),
      'd_fake': fake_logits.mean(),
      'd_real_accuracy': (real_logits > 0).mean(),
      'd_fake_accuracy': (fake_logits < 0).mean(),
    }
    if penalty is not None:
      # The first of the global batch, which are dealt out evenly, too.
      index, num_shards = shard_of(axis_name, axis_groups)
      total = max(1, round(penalty_fraction * real.shape[0] * num_shards))
      count = -(-total // num_shards)
      labels = None if real_labels is None else real_labels[:count]
      frozen = d_state  # The penalty moves neither ranges nor statistics.

      def logits(images: Array) -> Array:
        return judge(frozen, images, labels, call=2)[0]

      mix = jax.random.uniform(
        jax.random.fold_in(key, 0), (count * num_shards, 1, 1, 1)
      )
      penalties = penalty(logits, real[:count], fake[:count], shard(mix))
      counts = index + num_shards * jnp.arange(count) < total
      metrics['penalty'] = (
        jnp.where(counts, penalties, 0).sum() * num_shards / total
      )
      value += weight * metrics['penalty']
    return value, (d_state, metrics)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    d_steps, batch_size = batch['images'].shape[:2]
    g_state, d_state = state.generator, state.discriminator
    key = jax.random.fold_in(state.key, state.step)
    rate = rate_at(state.step)
    if schedule is not None:
      g_state, d_state = (
        part.replace(bits=schedule.at(part.bits, state.step))
        for part in (g_state, d_state)
      )

    def noise(network: Network, i: int) -> Array | None:
      """The key of a network's stochastic quantizers, for an update."""
      if not network.precision.stochastic:
        return None
      folded = jax.random.fold_in(key, d_steps)  # No update's own key.
      return jax.random.fold_in(folded, 2 * i + (network is generator))

    for i in range(d_steps):
      latents_key, penalty_key = jax.random.split(jax.random.fold_in(key, i))
      latents, fake_labels = draw(latents_key, batch_size)

      def generate(
        trained, latents=latents, labels=fake_labels, g=g_state, i=i
      ):
        g_noise = noise(generator, i)
        weights = generator.quantize(g, trained, g_noise)
        return forward(
          generator,
          g,
          latents,
          labels,
          weights=weights,
          learned=trained.learned,
          noise=g_noise,
        )

      fake, pull_back, g_state = jax.vjp(
        generate, g_state.trained, has_aux=True
      )
      labels = batch['labels'][i] if num_classes else None
      grads, (d_state, metrics) = jax.grad(d_loss, has_aux=True)(
        d_state.trained,
        d_state,
        to_float(batch['images'][i]),
        labels,
        fake,
        fake_labels,
        state.hyperparameters.penalty_weight,
        penalty_key,
        noise(discriminator, i),
      )
      d_grads, metrics = mean((grads, metrics))
      d_grads = computed_once(d_grads, state.step)
      d_state = discriminator.update(d_state, d_grads, rate)

    def g_loss(fake):
      d_noise = noise(discriminator, d_steps)
      weights = discriminator.quantize(d_state, d_state.trained, d_noise)
      logits, _ = forward(
        discriminator,
        d_state,
        fake,
        fake_labels,
        weights=weights,
        learned=d_state.learned,
        noise=d_noise,
      )
      return loss.generator(logits)

    g_value, fake_grads = jax.value_and_grad(g_loss)(fake)
    g_grads, metrics['g_loss'] = mean((pull_back(fake_grads)[0], g_value))
    g_grads = computed_once(g_grads, state.step)
    g_state = generator.update(g_state, g_grads, rate)

    metrics['d_gradient_norm'] = optax.global_norm(d_grads.params)
    metrics['g_gradient_norm'] = optax.global_norm(g_grads.params)
    finite = {
      'generator': _finite(g_grads),
      'discriminator': _finite(d_grads),
    }
    good = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))).all()
    # The norms do not speak of learned quantizers.
    good &= jnp.stack(jax.tree.leaves(finite)).all()
    metrics['finite'] = finite

    decay = jnp.minimum(
      state.hyperparameters.ema_decay,
      (1.0 + state.step) / (10.0 + state.step),
    )
    average = jax.tree.map(
      lambda slow, fast: decay * slow + (1 - decay) * fast,
      state.average,
      average_of(g_state),
    )
    proposed = state.replace(
      step=state.step + 1,
      generator=g_state.replace(bits=state.generator.bits),
      discriminator=d_state.replace(bits=state.discriminator.bits),
      average=average,
    )
    halted = state.halted | ~good
    metrics['halted'] = halted
    kept = jax.tree.map(
      lambda old, new: jnp.where(halted, old, new), state, proposed
    )
    return kept.replace(halted=halted), metrics

  return step
