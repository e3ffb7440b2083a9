"""A network with all that quantizes it, as one object."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.precision.compile import compile_quickly
from qgan_jax.precision.network import Precision, Ranges
from qgan_jax.precision.spec import Bits, Learned

PyTree = Any


class Quantized(struct.PyTreeNode):
  """A network with all that quantizes it.

  Attributes:
    module: any Linen module; static, as is `precision`.
    precision: by which quantizers.
    bits: to how many bits.
    variables: in float; 'params', and other collections.
    ranges: of the activations, [2] by module path.
    learned: parameters of the quantizers that are not fitted anew.
  """

  module: nn.Module = struct.field(pytree_node=False)
  precision: Precision = struct.field(pytree_node=False)
  bits: Bits
  variables: dict[str, PyTree]
  ranges: Ranges = struct.field(default_factory=dict)
  learned: Learned = struct.field(default_factory=dict)

  def in_float(self) -> 'Quantized':
    """The same network before anything is quantized."""
    return self.replace(precision=Precision())

  def with_float_activations(self) -> 'Quantized':
    """The same with its weights alone quantized."""
    precision = self.precision
    return self.replace(
      precision=dataclasses.replace(
        precision,
        activations=None,
        gradients=None,
        exceptions=tuple(e for e in precision.exceptions if e[0] == 'weights'),
      )
    )

  def weights(self, params: PyTree) -> PyTree:
    """The parameters with every weight quantized."""
    return self.precision.quantize_weights(
      params, self.bits, learned=self.learned
    )

  def run(self, params: PyTree, *args: Any, **kwargs: Any) -> Any:
    """The output, for parameters whose weights are quantized already."""
    output, _ = self.precision.apply(
      self.module,
      {**self.variables, 'params': params},
      self.ranges,
      self.bits,
      *args,
      learned=self.learned,
      **kwargs,
    )
    return output

  def __call__(self, *args: Any) -> Any:
    """The output with quantized weights and activations."""
    return self.run(self.weights(self.variables['params']), *args)

  def fitted(self, *args: Any) -> 'Quantized':
    """The network with quantizers that start from its weights and a batch.

    Args:
      *args: positional arguments of the module: the batch.

    Returns:
      The network with `learned` as `Precision.init` has it, and with the ranges
      of least squared error ('mse') that this batch has at these bits. Ranges
      from the least value to the greatest do not depend on bits: they stay.
      The network itself where nothing of it depends on them.
    """
    if not self.precision.fits_to_bits:
      return self
    found, learned = _compiled_init()(self, args)
    ranges = dict(self.ranges)
    for path in ranges:
      spec = self.precision.spec('activations', path)
      if spec is not None and spec.ranges == 'mse':
        ranges[path] = found[path]
    return self.replace(ranges=ranges, learned=learned)

  def with_batch_stats(self, batches: Sequence[tuple[Any, ...]]) -> 'Quantized':
    """The network with BatchNorm's statistics of its own quantized features.

    Those that training leaves are of the weights in training: neither of their
    moving average nor of rounded ones.

    Args:
      batches: positional arguments of the module, batch by batch; their
        statistics are averaged.

    Returns:
      The network; itself where it has no 'batch_stats'.
    """
    if 'batch_stats' not in self.variables:
      return self
    params = self.weights(self.variables['params'])
    found = [_batch_stats(self, params, args) for args in batches]
    stats = jax.tree.map(lambda *xs: jnp.mean(jnp.stack(xs), 0), *found)
    return self.replace(variables={**self.variables, 'batch_stats': stats})


@functools.cache
def _compiled_init() -> Callable[..., tuple[Ranges, Learned]]:
  def init(network: Quantized, args: Any) -> tuple[Ranges, Learned]:
    return network.precision.init(
      network.module, network.variables, network.bits, *args
    )

  return compile_quickly(init)


@jax.jit
def _batch_stats(network: Quantized, params: PyTree, args: Any) -> PyTree:
  """The statistics of one batch."""

  def moved(start: PyTree) -> PyTree:
    variables = {**network.variables, 'batch_stats': start}
    _, changed = network.replace(variables=variables).run(
      params, *args, train=True, mutable=['batch_stats']
    )
    return changed['batch_stats']

  # One call takes x to m·x + (1 − m)·batch: two calls tell m.
  old = network.variables['batch_stats']
  from_0 = moved(jax.tree.map(jnp.zeros_like, old))
  from_1 = moved(jax.tree.map(jnp.ones_like, old))

  def exact(path, before, a, b):
    # Spectral norm keeps its vectors in this collection, too.
    if path[-1].key not in ('mean', 'var'):
      return before
    return a / (1 - (b - a))

  return jax.tree_util.tree_map_with_path(exact, old, from_0, from_1)
