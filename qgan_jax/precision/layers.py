"""What layers a module has: found by tracing it, with no arithmetic."""

from typing import Any, NamedTuple

from flax import traverse_util
import flax.linen as nn
import jax

from qgan_jax.precision.network import is_layer, is_weight


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
      # Flax keeps (…, outputs, inputs) where it is asked for the transposed.
      transposed = getattr(context.module, 'transpose_kernel', False)
      axis = -2 if transposed else -1
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
