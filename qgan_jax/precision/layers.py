"""Finds the layers of a module by tracing it; nothing is computed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flax import traverse_util
from flax.core import tracers
import flax.linen as nn
import jax

from qgan_jax.precision.arguments import arguments_for
from qgan_jax.precision.network import is_weight
from qgan_jax.precision.own_input import is_layer, LAYERS, trace_inputs
from qgan_jax.quantizers import Axis

PyTree = Any
# Of parameters with several axes that are no weights: attention's biases have
# one for the heads, too.
_NO_WEIGHTS = ('bias', 'scale')


class Layer(NamedTuple):
  """A layer that rules can match.

  Attributes:
    path: module path, such as 'up0' or 'block1/conv'; '' for the module itself.
    kernel: shape of its weights; () if it has none of its own.
    channel_axis: axis of the kernel that holds the output channels; a tuple if
      they lie on several axes, such as heads and features in attention.
    inputs: shape of its input for one example, without the batch; None if only
      its weights are quantized.
    outputs: the same for its output.
    reads_input: whether it reads the network's own input directly, and not the
      output of another layer.
    known: False for a parameter that belongs to no Linen layer, such as one
      that a module uses in its own `einsum`. Its `path` is that of the
      parameter, and it stays in float unless a rule names it.
    transformed: whether it is called inside of a transformation, such as
      `nn.scan` or `nn.remat`. The range of its input cannot leave that.
  """

  path: str
  kernel: tuple[int, ...]
  channel_axis: Axis
  inputs: tuple[int, ...] | None
  outputs: tuple[int, ...] | None
  reads_input: bool = False
  known: bool = True
  transformed: bool = False

  @property
  def roles(self) -> tuple[str, ...]:
    """The roles that can be quantized in this layer."""
    roles: tuple[str, ...] = ('weights',) if self.kernel else ()
    if self.inputs is not None:
      roles += ('activations', 'gradients')
    return roles

  def shape(self, role: str) -> tuple[int, ...]:
    """Shape of the tensor that is quantized for a role."""
    shapes = (self.kernel, self.inputs, self.outputs)
    return shapes[('weights', 'activations', 'gradients').index(role)] or ()


def find_layers(
  module: nn.Module,
  *example: Any,
  variables: Mapping[str, PyTree] | None = None,
  **kwargs: Any,
) -> tuple[Layer, ...]:
  """Finds the layers of a module that have weights or multiply.

  Args:
    module: any Linen module.
    *example: example inputs, arrays or `jax.ShapeDtypeStruct`s.
    variables: of the module; None for those that `init` would make.
    **kwargs: keyword arguments of the module, static.

  Returns:
    First the layers whose inputs can be quantized, in the order of their calls;
    then everything else that has weights.
  """
  called: dict[str, Layer] = {}
  level: Any = None
  example, kwargs = arguments_for(module, example, kwargs)

  def record(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    if is_layer(context):
      x = args[0] if args else kwargs['inputs']
      path = '/'.join(context.module.path)
      axis = _channel_axis(context.module)
      layer = Layer(path, (), axis, x.shape[1:], y.shape[1:])
      inside = tracers.current_trace() != level
      called.setdefault(path, layer._replace(transformed=inside))
    return y

  def run(variables, *example):
    nonlocal level
    level = tracers.current_trace()
    with nn.intercept_methods(record):
      if variables is None:
        return module.init(jax.random.key(0), *example, **kwargs)
      module.apply(variables, *example, mutable=True, **kwargs)
      return variables

  shapes, own = trace_inputs(run, variables, *example)
  layers = {path: layer._replace(reads_input=path in own)
            for path, layer in called.items()}  # fmt: skip
  return _with_weights(layers, shapes)


def held_layers(module: nn.Module) -> tuple[Layer, ...]:
  """The layers with weights of a bound module, found without a call.

  The axis of the output channels is known for layers that exist before a call:
  the module itself, its fields, and what `setup` makes. For any other kernel,
  such as one made in a compact method, it is read from the shape of the bias if
  that fits one place only. Else the last axis is assumed, which is wrong only
  for a transposed kernel and for `DenseGeneral` with several features.

  Args:
    module: a Linen module bound to its variables.
  """
  _, variables = module.unbind()
  found = {
    '/'.join(layer.path): _channel_axis(layer)
    for layer in _held(module)
    if isinstance(layer, LAYERS)
  }
  layers = {path: Layer(path, (), axis, None, None)
            for path, axis in found.items()}  # fmt: skip
  weights = _with_weights(layers, variables)
  return tuple(layer for layer in weights if layer.kernel)


def _with_weights(
  called: Mapping[str, Layer], variables: Mapping[str, PyTree]
) -> tuple[Layer, ...]:
  """Layers with the shapes of their weights, and what else has weights."""
  found = dict(called)
  params = nn.meta.unbox(variables.get('params', {}))
  flat = traverse_util.flatten_dict(params)
  for keys, w in flat.items():
    if is_weight(keys, w):
      path = '/'.join(keys[:-1])
      if path not in found:
        axis = _axis_by_bias(w, flat.get((*keys[:-1], 'bias')))
        found[path] = Layer(path, (), axis, None, None)
      found[path] = found[path]._replace(kernel=w.shape)
    elif w.ndim >= 2 and keys[-1] not in _NO_WEIGHTS:
      path = '/'.join(keys)
      found[path] = Layer(path, w.shape, -1, None, None, known=False)
  return tuple(found.values())


def _channel_axis(layer: nn.Module) -> Axis:
  """The axis of a layer's kernel that is its output channels, or the axes."""
  if getattr(layer, 'transpose_kernel', False):
    return -2  # Flax then keeps (…, outputs, inputs).
  features = getattr(layer, 'features', 1)
  count = len(features) if isinstance(features, Sequence) else 1
  return -1 if count == 1 else tuple(range(-count, 0))


def _held(module: nn.Module) -> Iterator[nn.Module]:
  """A bound module and all below it that exist without a call."""
  yield module
  getattr(module, 'kernel', None)  # Flax runs `setup` at the first look.
  fields = {
    name: value
    for name, value in vars(module).items()
    if name not in ('parent', 'scope') and not name.startswith('_')
  }
  for value in jax.tree.leaves(fields):
    if isinstance(value, nn.Module):
      yield from _held(value)


def _axis_by_bias(kernel: Any, bias: Any | None) -> Axis:
  """The output axis of a kernel, as far as its bias's shape tells it."""
  *before, inputs, last = kernel.shape
  if bias is None or bias.shape in ((last,), (*before, last)):
    return -1  # The latter of `ConvLocal`.
  if bias.shape == (inputs,):
    return -2
  if bias.shape == kernel.shape[-bias.ndim :]:
    return tuple(range(-bias.ndim, 0))
  return -1
