"""The devices that hold the parts of one batch, for code inside the step.

Which devices these are is decided by `qgan_jax.training.devices`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any


class Replicas(NamedTuple):
  """The replicas that hold the parts of one batch, and quantize alike.

  Examples are assigned in turn: example i of a batch is on replica i mod the
  number of replicas.

  Attributes:
    axis_name: the mapped axis; None for a single replica.
    axis_groups: groups of its indices that belong together; None for one group
      of all.
  """

  axis_name: str | None = None
  axis_groups: Sequence[Sequence[int]] | None = None

  def mean(self, tree: PyTree) -> PyTree:
    """The mean over the replicas."""
    if self.axis_name is None:
      return tree
    return lax.pmean(tree, self.axis_name, axis_index_groups=self.axis_groups)

  def span(self, low: Array, high: Array) -> tuple[Array, Array]:
    """The least `low` and the greatest `high` of all replicas."""
    if self.axis_name is None:
      return low, high
    # One collective, as each waits for all replicas: the least is the greatest
    # of what is negated.
    ends = lax.pmax(
      jnp.stack([-low, high]),
      self.axis_name,
      axis_index_groups=self.axis_groups,
    )
    return -ends[0], ends[1]

  @property
  def place(self) -> tuple[Array | int, int]:
    """(index of this replica, number of replicas)."""
    if self.axis_name is None:
      return 0, 1
    index = lax.axis_index(self.axis_name)
    groups = self.axis_groups
    number = len(groups[0]) if groups else lax.axis_size(self.axis_name)
    return index % number, number

  def indices(self, rows: int) -> Array:
    """Indices of this replica's examples in the global batch, [rows]."""
    index, number = self.place
    return index + number * jnp.arange(rows)

  def deal(self, x: Array) -> Array:
    """This replica's rows of an array that is the same on all replicas."""
    if self.axis_name is None:
      return x
    index, number = self.place
    dealt = x.reshape(-1, number, *x.shape[1:])
    return lax.dynamic_index_in_dim(dealt, index, axis=1, keepdims=False)


ALONE = Replicas()
