"""What layers a module has: found by tracing it, with no arithmetic."""

from collections.abc import Iterator, Sequence
import functools
from typing import Any, NamedTuple

from flax import traverse_util
import flax.linen as nn
import jax

from qgan_jax.precision.network import is_layer, is_weight, LAYERS


class Layer(NamedTuple):
  """A layer that rules can speak of.

  Attributes:
    path: its module path, 'up0' or 'block1/conv'; '' for the module itself.
    kernel: shape of its weights, () where it has none of its own.
    channel_axis: of the kernel's output channels.
    inputs: shape of its input in one example, without the batch; None where
      its input is not caught, so that its weights alone are quantized.
    outputs: shape of its output, likewise.
  """

  path: str
  kernel: tuple[int, ...]
  channel_axis: int
  inputs: tuple[int, ...] | None
  outputs: tuple[int, ...] | None

  @property
  def roles(self) -> tuple[str, ...]:
    """What can be quantized of it."""
    roles: tuple[str, ...] = ('weights',) if self.kernel else ()
    if self.inputs is not None:
      roles += ('activations', 'gradients')
    return roles

  def shape(self, role: str) -> tuple[int, ...]:
    """The shape of what a role quantizes."""
    shapes = (self.kernel, self.inputs, self.outputs)
    return shapes[('weights', 'activations', 'gradients').index(role)] or ()


def find_layers(
  module: nn.Module, *example: Any, **kwargs: Any
) -> tuple[Layer, ...]:
  """The layers of a module: those with weights, those that multiply.

  Args:
    module: any Linen module.
    *example: arrays, or `jax.ShapeDtypeStruct`s, to call it with.
    **kwargs: keyword arguments of `module.init`, static.

  Returns:
    Those whose input is caught in the order they are called, and then what
    else has weights.
  """
  called: dict[str, Layer] = {}

  def record(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    if is_layer(context):
      x = args[0] if args else kwargs['inputs']
      path = '/'.join(context.module.path)
      axis = _output_axes(context.module)[-1]
      layer = Layer(path, (), axis, x.shape[1:], y.shape[1:])
      called.setdefault(path, layer)
    return y

  def init(*example):
    with nn.intercept_methods(record):
      return module.init(jax.random.key(0), *example, **kwargs)

  shapes = jax.eval_shape(init, *example)['params']
  for keys, w in traverse_util.flatten_dict(shapes).items():
    if is_weight(keys, w):
      path = '/'.join(keys[:-1])
      layer = called.get(path, Layer(path, (), -1, None, None))
      called[path] = layer._replace(kernel=w.shape)
  return tuple(called.values())


def _output_axes(layer: nn.Module) -> tuple[int, ...]:
  """The axes of a layer's kernel that are its output channels."""
  if getattr(layer, 'transpose_kernel', False):
    return (-2,)  # Flax then keeps (…, outputs, inputs).
  features = getattr(layer, 'features', 1)
  count = len(features) if isinstance(features, Sequence) else 1
  return tuple(range(-count, 0))


def kernel_output_axes(
  module: nn.Module, inputs: Sequence[Any] | None = None
) -> dict[str, tuple[int, ...]]:
  """Where each kernel of a bound module keeps its output channels.

  Args:
    module: a Linen module bound to its variables.
    inputs: arrays, or `jax.ShapeDtypeStruct`s, to call it with. Without them,
      only layers that exist before a call are seen: the module itself, its
      fields, and what `setup` makes. Of any other kernel, such as one made in
      a compact call, the bias tells, where its shape fits one place alone; else
      the last axis is taken, which is wrong only for a transposed kernel and
      for `DenseGeneral` with several features.

  Returns:
    Negative axes, ascending, by module path.
  """
  seen: dict[str, tuple[int, ...]] = {}

  def see(layer: nn.Module) -> None:
    seen['/'.join(layer.path)] = _output_axes(layer)

  def record(next_fun, args, kwargs, context):
    if is_layer(context):
      see(context.module)
    return next_fun(*args, **kwargs)

  unbound, variables = module.unbind()
  if inputs is None:
    for layer in filter(lambda held: isinstance(held, LAYERS), _held(module)):
      see(layer)
  else:
    call = functools.partial(unbound.apply, variables, mutable=True)
    with nn.intercept_methods(record):
      jax.eval_shape(call, *inputs)
  found = {}
  params = traverse_util.flatten_dict(variables['params'])
  for keys, kernel in params.items():
    if is_weight(keys, kernel):
      path = '/'.join(keys[:-1])
      bias = params.get((*keys[:-1], 'bias'))
      guess = (-1,) if bias is None else _by_bias(kernel, bias)
      found[path] = seen.get(path, guess)
  return found


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


def _by_bias(kernel: jax.Array, bias: jax.Array) -> tuple[int, ...]:
  """The output axes of a kernel, as far as its bias's shape tells them."""
  *before, inputs, last = kernel.shape
  if bias.shape in ((last,), (*before, last)):  # The latter of `ConvLocal`.
    return (-1,)
  if bias.shape == (inputs,):
    return (-2,)
  if bias.shape == kernel.shape[-bias.ndim :]:
    return tuple(range(-bias.ndim, 0))
  return (-1,)
