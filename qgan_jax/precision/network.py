"""How one network is quantized, and the network run so.

Weights are a transform of the parameter tree; activations are caught at the
input of every layer that multiplies (`nn.Dense`, `nn.DenseGeneral`, `nn.Conv`,
`nn.ConvTranspose` and what derives from them), gradients at its output. The
module itself is untouched and does not know.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from flax import traverse_util
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from qgan_jax.precision import pruning
from qgan_jax.precision.activations import (
  fit_to_batch,
  update_range,
)
from qgan_jax.precision.arguments import arguments_for
from qgan_jax.precision.gradients import quantize_cotangent
from qgan_jax.precision.noise import apply_with, example_keys, fold
from qgan_jax.precision.own_input import is_layer
from qgan_jax.precision.replicas import ALONE, Replicas
from qgan_jax.precision.spec import (
  Bits,
  FLOAT_BITS,
  Learned,
  Params,
  QuantizerSpec,
  ROLES,
  width,
)

Array = jax.Array
PyTree = Any
Observe = Callable[[str, Array, Params, Array], None]
Ranges = dict[str, Array]  # module path → [2], the lowest and the highest


def is_weight(path: tuple[str, ...], value: Any) -> bool:
  """Whether a parameter is a weight: biases and norms are left alone."""
  return path[-1] == 'kernel' and value.ndim >= 2


@dataclasses.dataclass(frozen=True)
class Precision:
  """How one network is quantized. Static; the bit widths are not part of it.

  Attributes:
    weights: quantizer of the weights, or None to leave them in float.
    activations: quantizer of the layers' inputs, or None. A learned one has
      its own parameters, and those of the network's own input stay as the first
      batch left them; else its range is, by its `ranges`, a 'moving'
      average of each batch's minimum and maximum, that of the batch itself
      ('dynamic'), a moving average of the part of it that leaves the least
      squared error ('mse'), or whatever the quantizer fits to the batch
      ('fitted').
    momentum: of the moving average of the activations' ranges; 0 takes the
      range of every batch by itself (dynamic).
    input_bits: least bits of the network's own input (images, latents): what
      a layer further in can lose, the data cannot. Where the bits of the
      activations are one number for all layers.
    gradients: quantizer of the gradients of the layers' outputs, or None.
    exceptions: (role, module path, quantizer or None) of each layer that
      differs from the above.
    input_layers: module paths of the layers that read the network's own input;
      None for the first call of a layer, as networks of earlier versions have.
  """

  weights: QuantizerSpec | None = None
  activations: QuantizerSpec | None = None
  momentum: float = 0.99
  input_bits: int = 8
  gradients: QuantizerSpec | None = None
  exceptions: tuple[tuple[str, str, QuantizerSpec | None], ...] = ()
  input_layers: tuple[str, ...] | None = None

  def spec(self, role: str, path: str) -> QuantizerSpec | None:
    """The quantizer of a layer's 'weights', 'activations' or 'gradients'."""
    for exception_role, exception_path, spec in self.exceptions:
      if (exception_role, exception_path) == (role, path):
        return spec
    return getattr(self, role)

  def weight_path(self, keys: tuple[str, ...], value: Any) -> str | None:
    """The path that rules and `spec` know a weight by.

    A layer's kernel has the path of its layer. Any other parameter, such as
    one that a module makes for an `einsum` of its own, is left in float unless
    an exception names it, and has its own path.

    Args:
      keys: of the parameter.
      value: it, or its shape.

    Returns:
      The path; None where the parameter is not to be quantized.
    """
    if is_weight(keys, value):
      return '/'.join(keys[:-1])
    path = '/'.join(keys)
    named = any(e[:2] == ('weights', path) for e in self.exceptions)
    return path if named and value.ndim >= 2 else None

  def specs(self, role: str) -> list[QuantizerSpec]:
    """Every quantizer that some layer's role has."""
    specs = [spec for r, _, spec in self.exceptions if r == role]
    return [spec for spec in (getattr(self, role), *specs) if spec is not None]

  def is_input(self, path: str, *, first: bool) -> bool:
    """Whether a layer reads the network's own input.

    Args:
      path: of the layer.
      first: whether no layer is called before it.
    """
    return first if self.input_layers is None else path in self.input_layers

  def activation_width(self, bits: Bits, path: str, *, is_input: bool) -> Array:
    """Bits of a layer's input; of the network's own, at least `input_bits`."""
    n = width(bits.activations, path)
    if is_input and not isinstance(bits.activations, Mapping):
      return jnp.maximum(n, self.input_bits)
    return n

  @property
  def stochastic(self) -> bool:
    """Whether training draws random numbers: some quantizer takes a key."""
    return any(
      spec.quantizer.stochastic for role in ROLES for spec in self.specs(role)
    )

  @property
  def learned(self) -> bool:
    """Whether some quantizer has parameters that are trained."""
    return any(
      spec.quantizer.learned for role in ROLES for spec in self.specs(role)
    )

  @property
  def fits_to_bits(self) -> bool:
    """Whether a state holds something that was fitted for certain bits."""
    clipped = (spec.ranges == 'mse' for spec in self.specs('activations'))
    return self.learned or any(clipped)

  def weight_params(
    self, path: str, w: Array, bits: Array, learned: Learned | None
  ) -> Params:
    """The parameters of a layer's weights' quantizer.

    Args:
      path: of the layer.
      w: its weights, pruned.
      bits: their bit width.
      learned: the state's learned parameters, which win; None for none.

    Raises:
      ValueError: the layer's weights have no quantizer.
    """
    spec = self.spec('weights', path)
    if spec is None:
      raise ValueError(f'the weights of {path!r} have no quantizer')
    found = (learned or {}).get('weights', {})
    return found[path] if path in found else spec.quantizer.fit(w, bits)

  def masks(self, params: PyTree, bits: Bits) -> dict[str, Array]:
    """What pruning leaves of every weight, by module path; {} without it."""
    if bits.sparsity is None:
      return {}
    weights = {
      path: w
      for keys, w in traverse_util.flatten_dict(params).items()
      if (path := self.weight_path(keys, w)) is not None
    }
    return pruning.layer_masks(weights, bits.sparsity)

  def quantize_weights(
    self,
    params: PyTree,
    bits: Bits,
    *,
    learned: Learned | None = None,
    key: Array | None = None,
  ) -> PyTree:
    """The parameters with every weight quantized, straight-through.

    Args:
      params: the parameter tree of any Linen module.
      bits: the network's bit widths; from 32 on, weights are left as they are.
      learned: learned parameters, as `init` returns them and training moves
        them; what is missing is fitted to the weights.
      key: of stochastic quantizers; None makes them round to nearest.

    Returns:
      A tree of the same shapes and dtypes. Gradients of pruned weights are 0.
    """
    masks = self.masks(params, bits)
    if not masks and not self.specs('weights'):
      return params
    flat = traverse_util.flatten_dict(params)
    for keys, w in flat.items():
      path = self.weight_path(keys, w)
      if path is None:
        continue
      mask = masks.get(path)
      w = w if mask is None else w * mask
      flat[keys] = w
      spec = self.spec('weights', path)
      if spec is None:
        continue
      n = width(bits.weights, path)
      rounded = apply_with(
        spec.quantizer,
        w,
        self.weight_params(path, w, n, learned),
        n,
        fold(key, 'weights', path),
      )
      # Not every quantizer has a level at 0: a pruned weight is 0 all the same.
      rounded = rounded if mask is None else rounded * mask
      flat[keys] = jnp.where(n >= FLOAT_BITS, w, rounded)
    return traverse_util.unflatten_dict(flat)

  def init(
    self,
    module: nn.Module,
    variables: Mapping[str, PyTree],
    bits: Bits,
    *args: Any,
    **kwargs: Any,
  ) -> tuple[Ranges, Learned]:
    """What a state holds of the quantizers, from a first batch.

    Args:
      module: any Linen module.
      variables: its variables in float.
      bits: the network's bit widths.
      *args: positional arguments of the module: the batch.
      **kwargs: keyword arguments of `module.apply`; see `apply`.

    Returns:
      (ranges of the activations; parameters of learned quantizers, those that
      stay as they are included: of weights as fitted to them, of activations
      as fitted to this batch's).
    """
    params = variables['params']
    masks = self.masks(params, bits)
    found: Learned = {'weights': {}, 'activations': {}}
    for keys, w in traverse_util.flatten_dict(params).items():
      path = self.weight_path(keys, w)
      spec = None if path is None else self.spec('weights', path)
      if path is not None and spec and spec.quantizer.learned:
        w = w * masks[path] if masks else w
        n = width(bits.weights, path)
        found['weights'][path] = spec.quantizer.fit(w, n)
    weights = self.quantize_weights(params, bits)

    def start(path: str, x: Array, params: Params, bits: Array) -> None:
      spec = self.spec('activations', path)
      if spec is not None and spec.quantizer.learned:
        found['activations'][path] = params

    _, ranges = self.apply(
      module,
      {**variables, 'params': weights},
      {},
      bits,
      *args,
      observe=start,
      **kwargs,
    )
    return ranges, {role: by_path for role, by_path in found.items() if by_path}

  def apply(
    self,
    module: nn.Module,
    variables: Mapping[str, PyTree],
    ranges: Ranges,
    bits: Bits,
    *args: Any,
    learned: Learned | None = None,
    key: Array | None = None,
    update: bool = False,
    replicas: Replicas = ALONE,
    observe: Observe | None = None,
    **kwargs: Any,
  ) -> tuple[Any, Ranges]:
    """Runs a module with quantized activations; its weights are as given.

    Args:
      module: any Linen module.
      variables: its variables, weights already quantized.
      ranges: ranges of the activations by module path, as the last call left
        them; {} at the first.
      bits: the network's bit widths.
      *args: positional arguments of the module.
      learned: learned parameters; what is missing is fitted to the batch.
      key: of stochastic quantizers; None makes them round to nearest.
      update: whether the moving averages take this batch in.
      replicas: that hold parts of the batch; ranges are reduced over them, so
        that all quantize alike.
      observe: called with every layer's path, input, parameters and bits.
      **kwargs: keyword arguments of `module.apply`. What the module's own
        signature lacks is left out; see `arguments_for`.

    Returns:
      (what `module.apply` returns, the ranges to go on with).
    """
    args, kwargs = arguments_for(module, args, kwargs)
    if not self.specs('activations') and not self.specs('gradients'):
      return module.apply(variables, *args, **kwargs), ranges
    given = (learned or {}).get('activations', {})
    updated: Ranges = dict(ranges)
    called: list[str] = []
    each = functools.partial(example_keys, replicas=replicas)

    def quantize_input(path: str, x: Array) -> Array:
      spec = self.spec('activations', path)
      is_input = self.is_input(path, first=not called)
      called.append(path)
      least = self.activation_width(bits, path, is_input=is_input)
      if spec is None:
        return x
      quantizer = spec.quantizer
      if path in given:
        # What goes into the network does not drift as what is inside does: the
        # range of the first batch stays. To learn it, a network would have to
        # compute a gradient by its input, which nothing else needs.
        params = lax.stop_gradient(given[path]) if is_input else given[path]
      elif (
        quantizer.learned
        or quantizer.from_range is None
        or spec.ranges == 'fitted'
      ):
        params = fit_to_batch(spec, x, least, replicas)
      else:
        updated[path] = update_range(
          spec,
          x,
          least,
          updated.get(path),
          momentum=0.0 if spec.ranges == 'dynamic' else self.momentum,
          update=update,
          replicas=replicas,
        )
        low, high = updated[path]
        params = quantizer.from_range(low, high, least)
      if observe is not None:
        observe(path, x, params, least)
      keys = each(fold(key, 'activations', path), x)
      rounded = apply_with(quantizer, x, params, least, keys)
      in_float = width(bits.activations, path) >= FLOAT_BITS
      return jnp.where(in_float, x, rounded)

    def quantize_gradient(path: str, y: Array) -> Array:
      spec = self.spec('gradients', path)
      if spec is None:
        return y
      keys = each(fold(key, 'gradients', path), y)
      return quantize_cotangent(
        spec.quantizer, y, width(bits.gradients, path), keys
      )

    def catch(next_fun, args, kwargs, context):
      if not is_layer(context):
        return next_fun(*args, **kwargs)
      # Flax calls the input so; a module may give it either way.
      x, *rest = args or (kwargs.pop('inputs'),)
      path = '/'.join(context.module.path)
      y = next_fun(quantize_input(path, x), *rest, **kwargs)
      return quantize_gradient(path, y)

    with nn.intercept_methods(catch):
      return module.apply(variables, *args, **kwargs), updated


def make_precision(
  *,
  weights: str,
  activations: str,
  per_channel: bool,
  ranges: str,
  momentum: float,
  input_bits: int,
) -> Precision:
  """A `Precision` from names.

  Args:
    weights: name of the weights' quantizer.
    activations: name of the activations' quantizer.
    per_channel: a scale for each output channel of a weight.
    ranges: 'moving' averages, 'dynamic' from each batch, moving ones of least
      'mse', or 'fitted' to each batch.
    momentum: of the moving averages.
    input_bits: least bits of the network's own input.

  Returns:
    The precision of a network whose weights and activations are quantized.
  """
  return Precision(
    weights=QuantizerSpec(weights, axis=-1 if per_channel else None),
    activations=QuantizerSpec(
      activations, ranges=None if ranges == 'moving' else ranges
    ),
    momentum=momentum,
    input_bits=input_bits,
  )
