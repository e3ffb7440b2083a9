"""Bit widths and sparsity as functions of the step.

They are pure functions of a traced step, so a whole schedule is one compiled
program. They apply to training. Images drawn, scored and packed during training
use the target's bits, those of the artifact.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from qgan_jax.precision.spec import Bits, FLOAT_BITS

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When a network is quantized and pruned. By default fully, at every step.

  Attributes:
    start_step: number of steps in float before anything is quantized.
    anneal_steps: number of steps after those in which the bits fall from
      `anneal_from` to the target, one at a time, at equal intervals.
    anneal_from: bits to start from; a target above it is used from the start.
    prune_start: number of steps before pruning begins.
    prune_steps: number of steps in which the sparsity rises to the target, as
      s·(1 − (1 − t)³) of Zhu and Gupta, https://arxiv.org/abs/1710.01878,
      eq. 1; 0 for all at once.
  """

  start_step: int = 0
  anneal_steps: int = 0
  anneal_from: int = 8
  prune_start: int = 0
  prune_steps: int = 0

  @property
  def changes_bits(self) -> bool:
    """Whether the bits depend on the step."""
    return bool(self.start_step or self.anneal_steps)

  def at(self, bits: Bits, step: Array) -> Bits:
    """The bits and the sparsity of a training step.

    Args:
      bits: the target, of any structure that `Bits` has.
      step: number of steps done before, int32; traced.

    Returns:
      The same structure; 32 and more bits mean float.
    """
    sparsity = bits.sparsity
    if sparsity is not None:
      sparsity = self.sparsity_at(sparsity, step)
    widths = bits._replace(sparsity=None)
    if self.changes_bits:
      widths = jax.tree.map(lambda n: self.bits_at(n, step), widths)
    return widths._replace(sparsity=sparsity)

  def bits_at(self, target: Array, step: Array) -> Array:
    """The bits of a step on the way to a target, a scalar."""
    n = jnp.asarray(target, jnp.float32)
    since = step - self.start_step
    if self.anneal_steps:
      stretches = jnp.maximum(self.anneal_from - n, 0.0)
      # The first stretch has anneal_from bits, and the target's follows the
      # last: as many stretches as there are bits to lose.
      lost = jnp.floor(since * stretches / self.anneal_steps)
      n = n + jnp.maximum(stretches - jnp.maximum(lost, 0.0), 0.0)
    return jnp.where(self.is_float(step), jnp.float32(FLOAT_BITS), n)

  def is_float(self, step: Array) -> Array:
    """Whether a step is in float, before `start_step`."""
    return step < self.start_step

  def sparsity_at(self, target: Array, step: Array) -> Array:
    """The sparsity of a step on the way to a target, a scalar."""
    target = jnp.asarray(target, jnp.float32)
    since = jnp.asarray(step - self.prune_start, jnp.float32)
    if not self.prune_steps:
      return jnp.where(since >= 0, target, 0.0)
    share = jnp.clip(since / self.prune_steps, 0.0, 1.0)
    return target * (1 - (1 - share) ** 3)

  def fitted_to(self, bits: Bits, step: Array | int) -> Bits:
    """The bits that the quantizers of a state were last fitted to.

    They are those of the last step. What a run starts with is fitted to the
    bits of the first step that is not in float.

    Args:
      bits: the target.
      step: number of steps done before, of any shape.
    """
    return self.at(bits, jnp.where(step > 0, step - 1, self.start_step))

  def refits(self, bits: Bits, step: Array) -> Array:
    """Whether quantizers have to be fitted anew before a step.

    That is so if the step's bits differ from those that the state is fitted to.
    Steps in float never need it.

    Args:
      bits: the target.
      step: number of steps done before, of any shape.

    Returns:
      Booleans of the shape of `step`.
    """
    changed = _differ(self.at(bits, step), self.fitted_to(bits, step))
    return changed & ~self.is_float(step)

  def is_on_the_way(self, bits: Bits, step: Array) -> Array:
    """Whether quantizers of a state are fitted to other bits than the target.

    Args:
      bits: the target.
      step: number of steps done before.
    """
    return _differ(self.fitted_to(bits, step), bits)


def _differ(a: Bits, b: Bits) -> Array:
  """Whether some width differs; sparsity does not count."""
  pairs = zip(
    jax.tree.leaves(a._replace(sparsity=None)),
    jax.tree.leaves(b._replace(sparsity=None)),
    strict=True,
  )
  return functools.reduce(jnp.logical_or, (x != y for x, y in pairs))
