"""One training step of a GAN, (state, batch) → (state, metrics), pure.

D is updated `d_steps` times, then G once, through the fakes that the last of
D's updates has seen, then G's moving average. Both networks' weights and
activations are quantized on the way, with straight-through gradients to the
float master weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import optax

from qgan_jax.precision import Precision
from qgan_jax.training.losses import Loss, Penalty
from qgan_jax.training.state import NetworkState, TrainState

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]
Metrics = dict[str, PyTree]
AxisGroups = tuple[tuple[int, ...], ...] | None
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Network:
  """A network with all that is static about its training."""

  module: nn.Module
  precision: Precision
  optimizer: optax.GradientTransformation


def to_float(images: Array) -> Array:
  """uint8 images to float32 in [−1, 1]."""
  return images.astype(jnp.float32) / 127.5 - 1


def _forward(
  network: Network,
  state: NetworkState,
  params: PyTree,
  *args: Array | None,
  axis_name: str | None,
  axis_groups: AxisGroups,
) -> tuple[Array, NetworkState]:
  """Runs a network in training: (output, state with stats and ranges moved)."""
  weights = network.precision.quantize_weights(params, state.bits)
  (output, stats), ranges = network.precision.apply(
    network.module,
    {'params': weights, **state.stats},
    state.ranges,
    state.bits,
    *args,
    update=True,
    axis_name=axis_name,
    axis_groups=axis_groups,
    mutable=list(state.stats),
    train=True,
  )
  moved = state.replace(stats=dict(stats), ranges=ranges)
  return output, lax.stop_gradient(moved)


def _update(
  network: Network, state: NetworkState, grads: PyTree
) -> NetworkState:
  updates, opt_state = network.optimizer.update(
    grads, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  return state.replace(params=params, opt_state=opt_state)


def _finite(tree: PyTree) -> PyTree:
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
  axis_name: str | None = None,
  axis_groups: AxisGroups = None,
  num_shards: int = 1,
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
    axis_name: the mapped axis that the batch is sharded over, or None.
    axis_groups: its indices by member, where several members share it.
    num_shards: how many parts the batch has.

  Returns:
    A pure function of (state, batch). The batch holds 'images', uint8
    [d_steps, B, H, W, C], and where the GAN is conditional 'labels', int32
    [d_steps, B]; B is a shard's. Metrics are scalars over the global batch,
    and 'finite', for each gradient tensor whether it was.
  """

  def mean(tree: PyTree) -> PyTree:
    if axis_name is None:
      return tree
    return lax.pmean(tree, axis_name, axis_index_groups=axis_groups)

  def shard_index() -> Array | int:
    return 0 if axis_name is None else lax.axis_index(axis_name) % num_shards

  def forward(*args: Any) -> tuple[Array, NetworkState]:
    return _forward(*args, axis_name=axis_name, axis_groups=axis_groups)

  def shard(x: Array) -> Array:
    """This replica's part of what all of them drew alike."""
    if axis_name is None:
      return x
    size = x.shape[0] // num_shards
    return lax.dynamic_slice_in_dim(x, shard_index() * size, size)

  def draw(key: Array, batch_size: int) -> tuple[Array, Array | None]:
    """Latents and labels of the fakes: the same whatever the shards."""
    latents_key, labels_key = jax.random.split(key)
    total = batch_size * num_shards
    latents = shard(jax.random.normal(latents_key, (total, latent_dim)))
    if not num_classes:
      return latents, None
    return latents, shard(
      jax.random.randint(labels_key, (total,), 0, num_classes)
    )

  def d_loss(
    params, d_state, real, real_labels, fake, fake_labels, weight, key
  ):
    real_logits, d_state = forward(
      discriminator, d_state, params, real, real_labels
    )
    fake_logits, d_state = forward(
      discriminator, d_state, params, fake, fake_labels
    )
    value = loss.discriminator(real_logits, fake_logits)
    metrics = {
      'd_loss': value,
      'd_real': real_logits.mean(),
      'd_fake': fake_logits.mean(),
      'd_real_accuracy': (real_logits > 0).mean(),
      'd_fake_accuracy': (fake_logits < 0).mean(),
    }
    if penalty is not None:
      count = max(1, round(penalty_fraction * real.shape[0]))
      labels = None if real_labels is None else real_labels[:count]
      frozen = d_state  # The penalty moves neither ranges nor statistics.

      def logits(images: Array) -> Array:
        return forward(discriminator, frozen, params, images, labels)[0]

      key = jax.random.fold_in(key, shard_index())
      metrics['penalty'] = penalty(logits, real[:count], fake[:count], key)
      value += weight * metrics['penalty']
    return value, (d_state, metrics)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    d_steps, batch_size = batch['images'].shape[:2]
    g_state, d_state = state.generator, state.discriminator
    key = jax.random.fold_in(state.key, state.step)

    for i in range(d_steps):
      latents_key, penalty_key = jax.random.split(jax.random.fold_in(key, i))
      latents, fake_labels = draw(latents_key, batch_size)

      def generate(params, latents=latents, labels=fake_labels, g=g_state):
        return forward(generator, g, params, latents, labels)

      fake, pull_back, g_state = jax.vjp(generate, g_state.params, has_aux=True)
      labels = batch['labels'][i] if num_classes else None
      grads, (d_state, metrics) = jax.grad(d_loss, has_aux=True)(
        d_state.params,
        d_state,
        to_float(batch['images'][i]),
        labels,
        fake,
        fake_labels,
        state.hyperparameters.penalty_weight,
        penalty_key,
      )
      d_grads, metrics = mean((grads, metrics))
      d_state = _update(discriminator, d_state, d_grads)

    def g_loss(fake):
      logits, _ = forward(
        discriminator, d_state, d_state.params, fake, fake_labels
      )
      return loss.generator(logits)

    g_value, fake_grads = jax.value_and_grad(g_loss)(fake)
    g_grads, metrics['g_loss'] = mean((pull_back(fake_grads)[0], g_value))
    g_state = _update(generator, g_state, g_grads)

    metrics['d_gradient_norm'] = optax.global_norm(d_grads)
    metrics['g_gradient_norm'] = optax.global_norm(g_grads)
    good = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))).all()
    metrics['finite'] = {
      'generator': _finite(g_grads),
      'discriminator': _finite(d_grads),
    }

    decay = jnp.minimum(
      state.hyperparameters.ema_decay,
      (1.0 + state.step) / (10.0 + state.step),
    )
    average = jax.tree.map(
      lambda slow, fast: decay * slow + (1 - decay) * fast,
      state.average,
      {'params': g_state.params, 'stats': g_state.stats},
    )
    proposed = state.replace(
      step=state.step + 1,
      generator=g_state,
      discriminator=d_state,
      average=average,
    )
    halted = state.halted | ~good
    kept = jax.tree.map(
      lambda old, new: jnp.where(halted, old, new), state, proposed
    )
    return kept.replace(halted=halted), metrics

  return step
