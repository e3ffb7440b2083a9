"""The devices that hold parts of one batch, as code inside the step sees them.

Where they lie and how they are grouped is `qgan_jax.training.devices`' choice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array
PyTree = Any


class Replicas(NamedTuple):
  """The replicas that hold parts of one batch, and quantize alike.

  A batch is dealt out in turn: its example i is on replica i mod their number.

  Attributes:
    axis_name: the mapped axis; None where there is one replica alone.
    axis_groups: its indices that belong together; all if None.
  """

  axis_name: str | None = None
  axis_groups: Sequence[Sequence[int]] | None = None

  def mean(self, tree: PyTree) -> PyTree:
    """The mean over them."""
    if self.axis_name is None:
      return tree
    return lax.pmean(tree, self.axis_name, axis_index_groups=self.axis_groups)

  def span(self, low: Array, high: Array) -> tuple[Array, Array]:
    """The least and the greatest over them."""
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
    """(which of them this one is, how many there are)."""
    if self.axis_name is None:
      return 0, 1
    index = lax.axis_index(self.axis_name)
    groups = self.axis_groups
    number = len(groups[0]) if groups else lax.axis_size(self.axis_name)
    return index % number, number

  def indices(self, rows: int) -> Array:
    """Numbers, in the global batch, of this replica's examples; [rows]."""
    index, number = self.place
    return index + number * jnp.arange(rows)

  def deal(self, x: Array) -> Array:
    """This replica's rows of what all of them have drawn alike."""
    if self.axis_name is None:
      return x
    index, number = self.place
    dealt = x.reshape(-1, number, *x.shape[1:])
    return lax.dynamic_index_in_dim(dealt, index, axis=1, keepdims=False)


ALONE = Replicas()
