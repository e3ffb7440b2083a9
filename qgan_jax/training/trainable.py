"""One network in training: its weights quantized, run, updated."""

from collections.abc import Iterator
import contextlib
import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import optax

from qgan_jax.backend import backend
from qgan_jax.precision import Learned, Precision, Quantized
from qgan_jax.precision.replicas import Replicas
from qgan_jax.training.state import NetworkState, Trained

Array = jax.Array
PyTree = Any
# Random numbers of masks, the same on all replicas.
_MASKS = 'masks'
# Those that Flax takes for a name that it is not given, as 'noise' may be; and
# what sets their keys apart from those of 'dropout'.
_ANY, _APART = 'params', 2**30


@dataclasses.dataclass(frozen=True)
class Trainable:
  """A network with its optimizers: what stays the same throughout training."""

  module: nn.Module
  precision: Precision
  optimizer: optax.GradientTransformation
  quantizer_optimizer: optax.GradientTransformation | None = None

  def quantized(self, state: NetworkState) -> Quantized:
    """The quantized network of a state, for use outside of training."""
    return Quantized(
      self.module,
      self.precision,
      state.bits,
      {'params': state.params, **state.stats},
      state.ranges,
      state.learned,
    )

  def quantize(
    self, state: NetworkState, trained: Trained, noise: Array | None
  ) -> PyTree:
    """The parameters with every weight quantized, once for all that use them.

    Args:
      state: the network's, for its bits.
      trained: the weights in float, and what its quantizers have learned.
      noise: key of stochastic quantizers; None rounds to nearest.

    Returns:
      The `weights` of `run`; gradients pass straight through.
    """
    return self.precision.quantize_weights(
      trained.params, state.bits, learned=trained.learned, key=noise
    )

  def run(
    self,
    state: NetworkState,
    *args: Array | None,
    weights: PyTree,
    learned: Learned,
    noise: Array | None,
    dropout: Array,
    call: int,
    replicas: Replicas,
  ) -> tuple[Array, NetworkState]:
    """Runs the network as training does.

    Args:
      state: the network's, for its bits, ranges and statistics.
      *args: positional arguments of the module.
      weights: what `quantize` returns.
      learned: what its quantizers have learned.
      noise: key of stochastic quantizers; None rounds to nearest.
      dropout: key of the module's own randomness, if it has any; each replica
        folds its own number in, but for the masks of `nn.Dropout`.
      call: number of this run in the update; each has its own rounding noise.
      replicas: the devices that share the batch.

    Returns:
      (the module's output, the state with updated statistics and ranges).
    """
    index, _ = replicas.place
    with _as_one_batch(replicas):
      (output, stats), ranges = self.precision.apply(
        self.module,
        {'params': weights, **state.stats},
        state.ranges,
        state.bits,
        *args,
        learned=learned,
        key=None if noise is None else jax.random.fold_in(noise, call),
        update=True,
        replicas=replicas,
        mutable=list(state.stats),
        rngs={
          name: jax.random.fold_in(jax.random.fold_in(dropout, number), call)
          for name, number in (
            ('dropout', index),
            (_MASKS, 0),
            (_ANY, _APART + index),
          )
        },
        train=True,
      )
    moved = state.replace(stats=dict(stats), ranges=ranges)
    return output, lax.stop_gradient(moved)

  def update(
    self, state: NetworkState, grads: Trained, rate: Array | float
  ) -> NetworkState:
    """One step of the optimizers, at `rate` times their learning rates."""
    updates, opt_state = self.optimizer.update(
      grads.params, state.opt_state, state.params
    )
    updates = optax.tree.scale(rate, updates)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(params=params, opt_state=opt_state)
    if self.quantizer_optimizer is None or not state.learned:
      return state
    updates, opt_state = self.quantizer_optimizer.update(
      grads.learned, state.learned_opt_state, state.learned
    )
    updates = optax.tree.scale(rate, updates)
    learned = optax.apply_updates(state.learned, updates)
    return state.replace(learned=learned, learned_opt_state=opt_state)


@contextlib.contextmanager
def _as_one_batch(replicas: Replicas) -> Iterator[None]:
  """Layers that see more than an example see the whole batch's.

  Every BatchNorm gets the statistics of the whole batch, and every Dropout its
  rows of a mask for all. A module that names the axis to average over itself is
  left alone; others need not know on how many devices they are trained.
  """

  def shared(next_fun, args, kwargs, context):
    module = context.module
    if isinstance(module, nn.BatchNorm) and module.axis_name is None:
      # Flax reads these fields in the call; there is no argument for them.
      object.__setattr__(module, 'axis_name', replicas.axis_name)
      object.__setattr__(module, 'axis_index_groups', replicas.axis_groups)
    if isinstance(module, nn.Dropout) and args:
      x, *rest = args
      _, number = replicas.place
      ones = jnp.ones((number * len(x), *x.shape[1:]), x.dtype)
      kwargs = {'rng': module.make_rng(_MASKS), **kwargs}
      return x * replicas.deal(next_fun(ones, *rest, **kwargs))
    return next_fun(*args, **kwargs)

  if replicas.axis_name is None:
    yield
    return
  with nn.intercept_methods(shared):
    yield


def computed_once(grads: Trained, step: Array) -> Trained:
  """The same gradients, those of kernels computed once (on a CPU).

  XLA:CPU repeats the last operations of a gradient (a mask, a transposition) in
  every loop that reads it: both moments, the update, the norm, the check. An
  `optimization_barrier` is removed before that happens. A division by a number
  that several arrays share is not repeated, so gradients are divided by a 1
  that the compiler cannot know to be 1. That is exact.

  Args:
    grads: float32.
    step: number of the training step, from 0.

  Returns:
    The same values.
  """
  if backend() != 'cpu':
    return grads
  one = (step >= 0).astype(jnp.float32)
  params = jax.tree.map(lambda x: x / one if x.ndim > 1 else x, grads.params)
  return grads._replace(params=params)
