"""A network together with its quantizers, as one object."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.precision.arguments import arguments_for
from qgan_jax.precision.compile import compile_quickly
from qgan_jax.precision.layers import find_layers, held_layers, Layer
from qgan_jax.precision.network import Precision, Ranges
from qgan_jax.precision.rules import range_of
from qgan_jax.precision.spec import (
  Bits,
  FLOAT_BITS,
  Learned,
  QuantizerSpec,
  width,
)
from qgan_jax.precision.table import Choice, format_table

PyTree = Any
_OF_BOUND = '_quantized'  # Attribute of a bound module: what it was made from.


class Input(NamedTuple):
  """Shape and type of one input of a network, for one example.

  Attributes:
    shape: without the batch; () for a label.
    dtype: name of the type, such as 'float32'.
  """

  shape: tuple[int, ...]
  dtype: str


def inputs_like(*arrays: Any) -> tuple[Input, ...]:
  """The `Input`s of a network, from arrays [N, …] or their shapes.

  64-bit types of NumPy become 32-bit types, as in JAX.
  """
  return tuple(
    Input(tuple(x.shape[1:]), str(jax.dtypes.canonicalize_dtype(x.dtype)))
    for x in arrays
    if x is not None
  )


class Quantized(struct.PyTreeNode):
  """A network together with everything that quantizes it.

  It is called like its module, `network(latents)`. It is a pytree, so compiled
  functions can take it as an argument.

  Attributes:
    module: any Linen module. Static, like `precision`, `inputs` and `rounded`.
    precision: which quantizers are used for which layers.
    bits: their bit widths.
    variables: of the module, in float: 'params' and other collections.
    ranges: of the activations, [2] by module path.
    learned: stored parameters of quantizers, by role and module path.
      Quantizers without an entry compute theirs from the tensor or from
      `ranges`.
    inputs: what the network is called with; None if that is not known.
    rounded: whether the weights in `variables` are quantized already, as in a
      network read from a file. They are then used as they are.
  """

  module: nn.Module = struct.field(pytree_node=False)
  precision: Precision = struct.field(pytree_node=False)
  bits: Bits
  variables: dict[str, PyTree]
  ranges: Ranges = struct.field(default_factory=dict)
  learned: Learned = struct.field(default_factory=dict)
  inputs: tuple[Input, ...] | None = struct.field(
    pytree_node=False, default=None
  )
  rounded: bool = struct.field(pytree_node=False, default=False)

  def in_float(self) -> 'Quantized':
    """The same network without any quantization."""
    return self.replace(precision=Precision())

  def with_float_activations(self) -> 'Quantized':
    """The same network with only its weights quantized."""
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
    """The given parameters with every weight quantized."""
    if self.rounded:
      return params
    return self.precision.quantize_weights(
      params, self.bits, learned=self.learned
    )

  def run(self, params: PyTree, *args: Any, **kwargs: Any) -> Any:
    """The network's output, for parameters that are quantized already.

    Args:
      params: of the module.
      *args: positional arguments of the module.
      **kwargs: keyword arguments of `module.apply`. Those that the module does
        not have are left out.
    """
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

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """The network's output, with quantized weights and activations.

    Args:
      *args: positional arguments of the module: the batch.
      **kwargs: keyword arguments of the module.

    Raises:
      TypeError: the module has no such keyword argument.
    """
    _, known = arguments_for(self.module, args, kwargs)
    unknown = kwargs.keys() - known.keys()
    if unknown:
      name = type(self.module).__name__
      raise TypeError(f'{name} has no argument {", ".join(sorted(unknown))}')
    return self.run(self.weights(self.variables['params']), *args, **kwargs)

  def bind(self) -> nn.Module:
    """The module bound to quantized weights; its activations are in float.

    `quantized_of` returns this network for the bound module.
    """
    params = self.weights(self.variables['params'])
    bound = self.module.bind({**self.variables, 'params': params})
    # No field of the module: it is equal to others as before.
    object.__setattr__(bound, _OF_BOUND, self)
    return bound

  def example(self) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes and types of the inputs, for a batch of one example."""
    return tuple(
      jax.ShapeDtypeStruct((1, *shape), dtype)
      for shape, dtype in self.inputs or ()
    )

  def table(self) -> str:
    """A table, as text, of the quantizer and bits of every layer.

    It includes activations if `inputs` is known. A parameter that belongs to no
    layer is listed under its own path; it is in float unless a rule names it.
    """
    if self.inputs is None:
      layers = held_layers(self.module.bind(self.variables))
    else:
      layers = find_layers(
        self.module, *self.example(), variables=self.variables
      )
    return format_table(
      [
        self._choice(layer, role, first=layer is layers[0])
        for layer in layers
        for role in layer.roles
        if role != 'gradients'
      ]
    )

  def _choice(self, layer: Layer, role: str, *, first: bool) -> Choice:
    """A line of the table."""
    precision, bits, path = self.precision, self.bits, layer.path
    is_input = precision.is_input(path, first=first)
    spec: QuantizerSpec | None = precision.spec(role, path)
    if not layer.known:
      weight = jax.ShapeDtypeStruct(layer.kernel, jnp.float32)
      if precision.weight_path(tuple(path.split('/')), weight) is None:
        spec = None
    n, ranges = float(FLOAT_BITS), ''
    if spec is not None:
      n = float(
        width(bits.weights, path)
        if role == 'weights'
        else precision.activation_width(bits, path, is_input=is_input)
      )
    if spec is None or n >= FLOAT_BITS:
      return Choice('', path, role, '', FLOAT_BITS, False, '',
                    layer.shape(role), '', None)  # fmt: skip
    if role == 'activations':
      momentum = 'moving' if precision.momentum else 'dynamic'
      ranges = range_of(
        spec.quantizer, spec.ranges or momentum, is_input=is_input
      )
      if ranges in ('moving', 'mse') and path in self.ranges:
        low, high = map(float, self.ranges[path])
        ranges = f'{low:.3g} … {high:.3g}'
    return Choice(
      '',
      path,
      role,
      spec.name,
      spec.quantizer.fixed_bits or n,
      role == 'weights' and spec.per_channel,
      ranges,
      layer.shape(role),
      '',
      0,
    )

  def fitted(self, *args: Any) -> 'Quantized':
    """The network with quantizers fitted to its weights and to one batch.

    Args:
      *args: positional arguments of the module: the batch.

    Returns:
      The network with `learned` as `Precision.init` returns it, and with ranges
      of least squared error ('mse') for this batch and these bits. Min-max
      ranges do not depend on bits and are kept. If nothing depends on bits, the
      network is returned unchanged.
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
    """The network with BatchNorm statistics measured on its quantized features.

    The statistics collected in training belong to the weights in training, not
    to their moving average and not to quantized weights.

    Args:
      batches: positional arguments of the module, for each batch. The
        statistics of all batches are averaged.

    Returns:
      The network; unchanged if it has no 'batch_stats'.
    """
    if 'batch_stats' not in self.variables:
      return self
    params = self.weights(self.variables['params'])
    found = [_batch_stats(self, params, args) for args in batches]
    stats = jax.tree.map(lambda *xs: jnp.mean(jnp.stack(xs), 0), *found)
    return self.replace(variables={**self.variables, 'batch_stats': stats})


def quantized_of(module: nn.Module) -> Quantized | None:
  """The network from which `Quantized.bind` made a module; None for others."""
  return vars(module).get(_OF_BOUND)


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
  old = network.variables['batch_stats']

  def is_moved(path: Any) -> bool:
    # Spectral norm keeps its vectors in this collection, too.
    return path[-1].key in ('mean', 'var')

  def moved(start: float) -> PyTree:
    stats = jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.full_like(x, start) if is_moved(path) else x, old
    )
    variables = {**network.variables, 'batch_stats': stats}
    _, changed = network.replace(variables=variables).run(
      params,
      *args,
      train=True,
      mutable=[name for name in variables if name != 'params'],
      rngs={'params': jax.random.key(0)},  # Those of all names.
    )
    return changed['batch_stats']

  # One call takes x to m·x + (1 − m)·batch: two calls tell m.
  from_0, from_1 = moved(0.0), moved(1.0)

  def exact(path, before, a, b):
    if not is_moved(path):
      return before
    share = 1 - (b - a)  # Of the batch; 0 where the layer never moves.
    return jnp.where(share == 0, before, a / jnp.where(share == 0, 1, share))

  return jax.tree_util.tree_map_with_path(exact, old, from_0, from_1)
