"""One training step of any variant, (state, batch) → (state, metrics), pure.

The variant says which networks minimise which losses. The step quantizes their
weights and activations, with straight-through gradients to the float master
weights, averages gradients over the replicas, applies the optimizers and
updates the moving averages.
"""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qgan_jax.precision.replicas import ALONE, Replicas
from qgan_jax.precision.schedule import Schedule
from qgan_jax.training.nets import Nets
from qgan_jax.training.state import (
  average_of,
  NetworkState,
  Trained,
  TrainState,
)
from qgan_jax.training.trainable import computed_once, Trainable
from qgan_jax.variants import Round, Variant

Array = jax.Array
PyTree = Any
Batch = Mapping[str, Array]
Metrics = dict[str, PyTree]
States = dict[str, NetworkState]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def to_float(images: Any) -> Any:
  """uint8 images to float32 in [−1, 1]."""
  return images.astype(jnp.float32) / 127.5 - 1


def _finite(grads: Trained) -> dict[str, PyTree]:
  tree = grads.params
  if grads.learned:
    tree = {**tree, 'quantizers': grads.learned}
  return jax.tree.map(lambda x: jnp.isfinite(x).all(), tree)


def _partition(
  tree: PyTree,
) -> tuple[list[Array], list[Array], Callable[..., PyTree]]:
  """(float leaves, which have gradients; the others; what joins them again)."""
  leaves, structure = jax.tree.flatten(tree)
  is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]

  def join(floats: list[Array], others: list[Array]) -> PyTree:
    kinds = {True: iter(floats), False: iter(others)}
    return jax.tree.unflatten(structure, [next(kinds[f]) for f in is_float])

  floats = [x for x, f in zip(leaves, is_float, strict=True) if f]
  others = [x for x, f in zip(leaves, is_float, strict=True) if not f]
  return floats, others, join


class _Made(NamedTuple):
  """What the rounds of a step share.

  Attributes:
    floats: the leaves that have gradients.
    others: the leaves that have none.
    join: (floats, others) → what the variant's `make` returned.
    pull_back: gradients of the floats → those of the sources' parameters.
  """

  floats: list[Array]
  others: list[Array]
  join: Callable[..., PyTree]
  pull_back: Callable[[list[Array]], Any]


def make_step(
  variant: Variant,
  networks: Mapping[str, Trainable],
  *,
  schedule: Schedule | None = None,
  rate_at: optax.Schedule = lambda step: 1.0,
  replicas: Replicas = ALONE,
) -> Step:
  """Makes the step.

  Args:
    variant: networks, losses, who is updated when.
    networks: its networks, by name.
    schedule: of bits and sparsity; None keeps those of the state.
      Where bits change, learned quantizers are fitted anew before the step, by
      `Refit`.
    rate_at: step → the factor on all learning rates.
    replicas: the devices that share the batch.

  Returns:
    A pure function of (state, batch). The batch holds 'images', uint8
    [repeats, B, H, W, C], and where there are classes 'labels', int32
    [repeats, B]; B is a replica's. Metrics are scalars over the global batch.
    Two are flags: 'finite', for each gradient tensor whether it is finite, and
    'halted', whether a value that is not has stopped training, now or before.
  """
  repeats = variant.repeats
  order = sorted(networks)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(state.key, state.step)
    noise_key = jax.random.fold_in(key, repeats)  # Batches have 0…repeats−1.
    rate = rate_at(state.step)
    bits_at = schedule.at if schedule is not None else lambda bits, step: bits
    states: States = {
      name: part.replace(bits=bits_at(part.bits, state.step))
      for name, part in state.networks.items()
    }
    numbers = {**state.hyperparameters.variant, **state.adapted}
    last_grads: dict[str, Trained] = {}
    metrics: Metrics = {}

    def noise(update: int, name: str) -> Array | None:
      """The key of a network's stochastic quantizers, for an update."""
      if not networks[name].precision.stochastic:
        return None
      place = len(order) * update + order.index(name)
      return jax.random.fold_in(noise_key, place)

    def dropout(update: int, name: str) -> Array:
      """The key of a module's own randomness, the same on all replicas."""
      place = len(order) * update + order.index(name)
      return jax.random.fold_in(jax.random.fold_in(noise_key, 2**31), place)

    def nets(
      states: States, trained: Mapping[str, Trained], moving: Any, update: int
    ) -> Nets:
      return Nets(
        networks,
        states,
        trained,
        moving=moving,
        noise=functools.partial(noise, update),
        dropout=functools.partial(dropout, update),
        rows=batch['images'].shape[1],
        replicas=replicas,
        hyperparameters=numbers,
      )

    def make(
      states: States, data: Any, key: Array, update: int
    ) -> tuple[_Made, States]:
      """(what rounds share, the states after the sources' calls)."""
      join: Callable[..., PyTree]

      def floats_of(
        trained: Mapping[str, Trained],
      ) -> tuple[list[Array], tuple[list[Any], States]]:
        nonlocal join
        calls = nets(states, trained, variant.sources, update)
        floats, others, join = _partition(variant.make(calls, data, key))
        return floats, (others, calls.states)

      sources = {name: states[name].trained for name in variant.sources}
      floats, pull_back, (others, states) = jax.vjp(
        floats_of, sources, has_aux=True
      )
      return _Made(floats, others, join, pull_back), states

    def run(
      round_: Round,
      states: States,
      data: Any,
      made: _Made,
      key: Array,
      update: int,
    ) -> States:
      """Updates the networks of a round."""
      called: set[str] = set()

      def loss(
        trained: Mapping[str, Trained], floats: list[Array]
      ) -> tuple[Array, Any]:
        calls = nets(states, trained, round_.trains, update)
        joined = made.join(floats, made.others)
        value, told = round_.loss(calls, data, joined, key)
        called.update(name for name in order if calls.was_called(name))
        return value, (calls.states, told)

      own = {name: states[name].trained for name in round_.trains}
      through = [name for name in round_.trains if name in variant.sources]
      wanted = (0, 1) if through else (0,)
      grads, (moved, told) = jax.grad(loss, wanted, has_aux=True)(
        own, made.floats
      )
      found = dict(grads[0])
      if through:
        (pulled,) = made.pull_back(grads[1])
        for name in through:
          if name in called:
            found[name] = jax.tree.map(jnp.add, found[name], pulled[name])
          else:
            found[name] = pulled[name]
      found, told = replicas.mean((found, told))
      metrics.update(told)
      for name, network_grads in found.items():
        once = computed_once(network_grads, state.step)
        last_grads[name] = once
        moved[name] = networks[name].update(moved[name], once, rate)
      return moved

    first, *rest = variant.rounds
    for i in range(repeats):
      make_key, round_key = jax.random.split(jax.random.fold_in(key, i))
      data: Batch = {
        name: to_float(x[i]) if x.dtype == jnp.uint8 else x[i]
        for name, x in batch.items()
      }
      own_key = jax.random.fold_in(round_key, len(variant.rounds))
      data = variant.prepare(nets(states, {}, (), i), data, own_key)
      made, states = make(states, data, make_key, i)
      own_key = jax.random.fold_in(round_key, 0)
      states = run(first, states, data, made, own_key, i)
    for i, round_ in enumerate(rest):
      own_key = jax.random.fold_in(round_key, 1 + i)
      states = run(round_, states, data, made, own_key, repeats + i)

    adapted = state.adapted
    if variant.adapt is not None:
      images = math.prod(batch['images'].shape[:2]) * replicas.place[1]
      adapted = variant.adapt(numbers, metrics, images)

    for name, grads in last_grads.items():
      norm = optax.global_norm(grads.params)
      metrics[f'{variant.prefixes[name]}_gradient_norm'] = norm
    finite = {name: _finite(grads) for name, grads in last_grads.items()}
    # The norms in the metrics leave out the gradients of learned quantizers.
    checks = jax.tree.leaves((jax.tree.map(jnp.isfinite, metrics), finite))
    # Counted: XLA:CPU would carry out a chain of ands in every parameter's
    # update, and compile that of R3GAN's layers for more than ten minutes.
    bad = jnp.sum(~jnp.stack(checks), dtype=jnp.float32)
    metrics['finite'] = finite

    decay = jnp.minimum(
      state.hyperparameters.ema_decay,
      (1.0 + state.step) / (10.0 + state.step),
    )
    average = jax.tree.map(
      lambda slow, fast: (
        decay * slow + (1 - decay) * fast
        if jnp.issubdtype(fast.dtype, jnp.floating)
        else fast  # A counter, say.
      ),
      state.average,
      {name: average_of(states[name]) for name in state.average},
    )
    proposed = state.replace(
      step=state.step + 1,
      networks={
        name: part.replace(bits=state.networks[name].bits)
        for name, part in states.items()
      },
      average=average,
      adapted=adapted,
    )
    halted = state.halted | (bad > 0)
    metrics['halted'] = halted
    kept = jax.tree.map(
      lambda old, new: jnp.where(halted, old, new), state, proposed
    )
    return kept.replace(halted=halted), metrics

  return step
