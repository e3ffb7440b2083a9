"""How one network is quantized, and how it is run with quantizers.

Weights are quantized in the parameter tree. Activations are quantized at the
input of every layer that multiplies (`nn.Dense`, `nn.DenseGeneral`, `nn.Conv`,
`nn.ConvLocal`, `nn.ConvTranspose` and classes derived from them), gradients at
its output. The module itself needs no change.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
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
# By module path, the lowest and the highest value of a tensor: [2].
Ranges = dict[str, Array]


def is_weight(path: tuple[str, ...], value: Any) -> bool:
  """Whether a parameter is a weight: a `kernel` with two or more axes."""
  return path[-1] == 'kernel' and value.ndim >= 2


@dataclasses.dataclass(frozen=True)
class Precision:
  """How one network is quantized. Static; the bit widths are not part of it.

  Attributes:
    weights: quantizer of the weights, or None for float.
    activations: quantizer of the layers' inputs, or None for float. If it has
      learned parameters, they are used, except for the network's own input,
      which keeps the parameters of the first batch. Otherwise its `ranges`
      decide: 'moving', a moving average of each batch's minimum and maximum;
      'dynamic', minimum and maximum of the batch itself; 'mse', a moving
      average of the part of each batch's range that leaves the least squared
      error; 'fitted', what the quantizer's `fit` computes from each batch.
    momentum: of the moving averages of ranges; 0 uses each batch's own range
      (dynamic).
    input_bits: least bits of the network's own input (images, latents), however
      few the other activations have. Used if the bits of the activations are
      one number for all layers.
    gradients: quantizer of the gradients of the layers' outputs, or None for
      float.
    exceptions: (role, module path, quantizer or None) of each layer that
      differs from the fields above.
    input_layers: module paths of the layers that read the network's own input.
      None, as in files of earlier format versions, means the layer that is
      called first.
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
    """The path under which rules and `spec` find a parameter as a weight.

    For the kernel of a layer this is the layer's path. Any other parameter,
    such as one that a module uses in an `einsum`, has its own path, and stays
    in float unless an exception names it.

    Args:
      keys: of the parameter, from the root of the tree.
      value: the parameter, or its shape.

    Returns:
      The path; None if the parameter is not to be quantized.
    """
    if is_weight(keys, value):
      return '/'.join(keys[:-1])
    path = '/'.join(keys)
    named = any(e[:2] == ('weights', path) for e in self.exceptions)
    return path if named and value.ndim >= 2 else None

  def specs(self, role: str) -> list[QuantizerSpec]:
    """All quantizers of a role: the general one and those of exceptions."""
    specs = [spec for r, _, spec in self.exceptions if r == role]
    return [spec for spec in (getattr(self, role), *specs) if spec is not None]

  def is_input(self, path: str, *, first: bool) -> bool:
    """Whether a layer reads the network's own input.

    Args:
      path: of the layer.
      first: whether this layer is the first to be called.
    """
    return first if self.input_layers is None else path in self.input_layers

  def activation_width(self, bits: Bits, path: str, *, is_input: bool) -> Array:
    """Bits of a layer's input; for the network's own, at least `input_bits`."""
    n = width(bits.activations, path)
    if is_input and not isinstance(bits.activations, Mapping):
      return jnp.maximum(n, self.input_bits)
    return n

  @property
  def stochastic(self) -> bool:
    """Whether any quantizer rounds at random, and so needs a key."""
    return any(
      spec.quantizer.stochastic for role in ROLES for spec in self.specs(role)
    )

  @property
  def learned(self) -> bool:
    """Whether any quantizer has parameters that are trained."""
    return any(
      spec.quantizer.learned for role in ROLES for spec in self.specs(role)
    )

  @property
  def fits_to_bits(self) -> bool:
    """Whether a state holds parameters or ranges fitted to certain bits."""
    clipped = (spec.ranges == 'mse' for spec in self.specs('activations'))
    return self.learned or any(clipped)

  def weight_params(
    self, path: str, w: Array, bits: Array, learned: Learned | None
  ) -> Params:
    """The quantizer parameters of a layer's weights.

    Args:
      path: of the layer.
      w: its weights, pruned.
      bits: their bit width.
      learned: stored parameters; used if they have this layer. None for none.

    Raises:
      ValueError: the layer's weights have no quantizer.
    """
    spec = self.spec('weights', path)
    if spec is None:
      raise ValueError(f'the weights of {path!r} have no quantizer')
    found = (learned or {}).get('weights', {})
    return found[path] if path in found else spec.quantizer.fit(w, bits)

  def masks(self, params: PyTree, bits: Bits) -> dict[str, Array]:
    """Pruning masks of the weights, by module path; {} without pruning."""
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
      bits: the network's bit widths; 32 and more leave weights as they are.
      learned: learned parameters, as `init` returns them and training updates
        them. Where they lack a layer, parameters are fitted to its weights.
      key: random key for stochastic quantizers; without one they round to
        nearest.

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
    """Computes what a training state stores of the quantizers.

    Args:
      module: any Linen module.
      variables: its variables in float.
      bits: the network's bit widths.
      *args: positional arguments of the module: the first batch.
      **kwargs: keyword arguments of `module.apply`; see `apply`.

    Returns:
      (ranges of the activations, parameters of learned quantizers). Parameters
      of weights are fitted to the weights, those of activations to this batch,
      in all calls of a layer; those that never change are included.
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
    given: dict[str, list[Array]] = {}

    def start(path: str, x: Array, params: Params, bits: Array) -> None:
      spec = self.spec('activations', path)
      if spec is not None and spec.quantizer.learned:
        given.setdefault(path, []).append(x)
        if len(given[path]) > 1:
          params = fit_to_batch(spec, _joined(given[path]), bits, ALONE)
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
    """Runs a module with quantized activations; its weights are not changed.

    Args:
      module: any Linen module.
      variables: its variables, with weights quantized already.
      ranges: of the activations by module path, as the last call returned them;
        {} in the first call.
      bits: the network's bit widths.
      *args: positional arguments of the module.
      learned: learned parameters. Where they lack a layer, parameters are
        fitted to the batch.
      key: random key for stochastic quantizers; without one they round to
        nearest.
      update: whether this batch is included in the moving averages.
      replicas: the devices that hold parts of the batch. Ranges are reduced
        over them, so that all quantize in the same way.
      observe: called for every layer input that has a quantizer, with path,
        input, quantizer parameters and bits.
      **kwargs: keyword arguments of `module.apply`. Those that the module's
        signature lacks are left out; see `arguments_for`.

    Returns:
      (what `module.apply` returns, the ranges for the next call).
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


def _joined(inputs: list[Array]) -> Array:
  """The inputs of a layer's calls as one batch, whatever their shapes."""
  rows = math.gcd(*(len(x) for x in inputs))
  return jnp.concatenate([x.reshape(rows, -1) for x in inputs], 1)


def make_precision(
  *,
  weights: str,
  activations: str,
  per_channel: bool,
  ranges: str,
  momentum: float,
  input_bits: int,
) -> Precision:
  """A `Precision` from names of quantizers.

  Args:
    weights: name of the weights' quantizer.
    activations: name of the activations' quantizer.
    per_channel: whether each output channel of a weight has its own scale.
    ranges: 'moving', 'dynamic', 'mse' or 'fitted'; see `Precision`.
    momentum: of the moving averages of ranges.
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
