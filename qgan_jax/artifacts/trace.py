"""A network as a list of operations, for any module.

The module is traced once, for a batch of any size, as JAX traces what it
compiles. The result is a list of JAX's primitives, of which there are few;
everything that depends on no input is computed. Two things are marked while
tracing, since they would be hard to find in the arithmetic:

  `quantize`: the input of a layer of Linen's that multiplies, if the
    precision quantizes it.
  `group_norm`: `nn.GroupNorm` and `nn.InstanceNorm`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import re
from typing import Any, NamedTuple

from flax import traverse_util
import flax.linen as nn
import jax
from jax import export
import jax.extend as jex
import numpy as np

from qgan_jax.artifacts.activation_steps import activation_steps
from qgan_jax.artifacts.levels import integer_codes, Steps
from qgan_jax.errors import UserError
from qgan_jax.models.convolution import as_written
from qgan_jax.precision import is_layer, Quantized
from qgan_jax.precision.arguments import arguments_for

Array = np.ndarray
BATCH = -1  # Stands in shapes for the batch's size, and −n for n times that.
MAX_CODE = 128  # Largest magnitude of a weight's code.

# Operations that leave values as they are and put them elsewhere.
MOVES = frozenset({
  'reshape', 'transpose', 'rev', 'slice', 'squeeze', 'expand_dims',
  'broadcast_in_dim',
})  # fmt: skip
# Those that do nothing to what is drawn.
_NOTHING = ('stop_gradient', 'copy', 'copy_p', 'optimization_barrier', 'name')
# Those that stand for the program that they hold.
_CALLS = frozenset({
  'jit', 'pjit', 'closed_call', 'core_call', 'checkpoint', 'remat', 'remat2',
  'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr',
})  # fmt: skip

_quantize = jex.core.Primitive('quantize')
_quantize.def_abstract_eval(lambda x, *, call: x)
_group_norm = jex.core.Primitive('group_norm')
_group_norm.def_abstract_eval(lambda x, *_, group_size, epsilon: x)


@_group_norm.def_impl
def _normalized(
  x: Any, scale: Any, bias: Any, *, group_size: int, epsilon: float
) -> Any:
  """What it computes, of constants."""
  grouped = x.reshape(*x.shape[:-1], -1, group_size)
  mean = grouped.mean((1, 2, 4), keepdims=True)
  variance = grouped.var((1, 2, 4), keepdims=True)
  normal = (grouped - mean) * jax.lax.rsqrt(variance + epsilon)
  return normal.reshape(x.shape) * scale + bias


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """The result of an operation; two are equal only if they are the same.

  Attributes:
    shape: with multiples of `BATCH` for sizes that depend on the batch.
    dtype: of the values.
  """

  shape: tuple[int, ...]
  dtype: np.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
  """A value that depends on no input.

  Attributes:
    value: as the network uses it: a quantized weight has its rounded values.
    weight: the quantized weight that it was made from by moving values, by its
      name in rules; '' for anything else.
    scales: of the value's shape: the step of which each value of a weight is a
      multiple; None if none was found.
  """

  value: Array
  weight: str = ''
  scales: Array | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the value."""
    return self.value.shape

  @property
  def dtype(self) -> np.dtype:
    """Of the value."""
    return self.value.dtype

  def moved(self, move: Callable[[Array], Array]) -> 'Constant':
    """The same values, moved by a function."""
    scales = None if self.scales is None else move(self.scales)
    return Constant(move(self.value), self.weight, scales)


Operand = Tensor | Constant


class Node(NamedTuple):
  """One operation.

  Attributes:
    op: the name of JAX's primitive, or one of this module's.
    inputs: its operands.
    output: its result.
    params: as in the primitive.
    where: the modules that contain it, 'Generator/up0'.
  """

  op: str
  inputs: tuple[Operand, ...]
  output: Tensor
  params: Mapping[str, Any] = {}
  where: str = ''


class Trace(NamedTuple):
  """A network: its `nodes`, in an order in which they can be computed.

  Attributes:
    inputs: of the network.
    nodes: all that its output needs.
    output: of one of the nodes.
    calls: module paths of the layers whose inputs are marked; the `call` of a
      `quantize` node is an index of it.
    steps: of the quantizer of each call's input.
  """

  inputs: tuple[Tensor, ...]
  nodes: tuple[Node, ...]
  output: Tensor
  calls: tuple[str, ...]
  steps: tuple[Steps | None, ...]


def trace(network: Quantized, *, mark: bool) -> Trace:
  """Traces a network.

  Args:
    network: with known `inputs`; its weights are quantized.
    mark: whether inputs of layers are marked, to be quantized later.

  Raises:
    UserError: the network cannot be traced for a batch of any size, or returns
      anything but one array of images; or an input that is marked has no steps.
  """
  (batch,) = export.symbolic_shape('batch')
  arguments = [
    jax.ShapeDtypeStruct((batch, *shape), dtype)
    for shape, dtype in network.inputs or ()
  ]
  params = network.weights(network.variables['params'])
  flat = traverse_util.flatten_dict({**network.variables, 'params': params})
  calls: list[str] = []

  def run(values: Sequence[Any], *inputs: Any) -> Any:
    variables = traverse_util.unflatten_dict(
      dict(zip(flat, values, strict=True))
    )
    args, kwargs = arguments_for(network.module, inputs, {})
    with as_written(), nn.intercept_methods(_marker(calls, mark)):
      return network.module.apply(variables, *args, **kwargs)

  try:
    jaxpr = jax.make_jaxpr(run)(list(flat.values()), *arguments)
  except Exception as error:  # Whatever a module of your own raises.
    raise UserError(
      f'{type(network.module).__name__} cannot be traced for a batch of any '
      f'size ({str(error).splitlines()[0]}): export it as packed'
    ) from error
  if len(jaxpr.out_avals) != 1:
    raise UserError(
      f'{type(network.module).__name__} returns {len(jaxpr.out_avals)} arrays, '
      'and a graph of images has one: export it as packed'
    )
  if str(jaxpr.out_avals[0].shape[:1]) != str((batch,)):
    raise UserError(
      f'{type(network.module).__name__} does not give one image for each '
      'example, which a graph has to: export it as packed'
    )
  steps = activation_steps(network, tuple(calls)) if mark else ()
  reader = _Reader(steps)
  inputs = tuple(_tensor(v.aval) for v in jaxpr.jaxpr.invars[len(flat) :])
  weights = [_constant(network, *item) for item in flat.items()]
  (output,) = reader.read(jaxpr, [*weights, *inputs], '')
  if isinstance(output, Constant):
    raise UserError('the network gives the same for every input')
  nodes = needed(reader.nodes, output)
  return Trace(inputs, nodes, output, tuple(calls), tuple(steps))


def needed(nodes: Iterable[Node], output: Operand) -> tuple[Node, ...]:
  """The nodes that an output depends on, in their order."""
  wanted, kept = {output}, []
  for node in reversed(list(nodes)):
    if node.output in wanted:
      kept.append(node)
      wanted.update(node.inputs)
  return tuple(kept[::-1])


def _marker(calls: list[str], mark: bool) -> Callable[..., Any]:
  def intercept(next_fun, args, kwargs, context):
    module = context.module
    if context.method_name != '__call__':
      return next_fun(*args, **kwargs)
    if mark and is_layer(context):
      x, *rest = args or (kwargs.pop('inputs'),)
      calls.append('/'.join(module.path))
      x = _quantize.bind(x, call=len(calls) - 1)
      return next_fun(x, *rest, **kwargs)
    y = next_fun(*args, **kwargs)
    groups = _groups(module, y)
    if groups is None or len(args) != 1 or kwargs:
      return y  # Its arithmetic, where a mask has a part in it.
    (x,) = args
    given = module.variables.get('params', {})
    ones = np.ones(x.shape[-1], np.float32)
    scale, bias = given.get('scale', ones), given.get('bias', 0 * ones)
    return _group_norm.bind(
      x,
      *(jax.numpy.asarray(v, x.dtype) for v in (scale, bias)),
      group_size=x.shape[-1] // groups,
      epsilon=float(module.epsilon),
    )

  return intercept


def _groups(module: nn.Module, y: Any) -> int | None:
  """How many groups of channels a norm has; None of anything else."""
  if getattr(y, 'ndim', 0) != 4:
    return None
  channels = y.shape[-1]
  if type(module) is nn.InstanceNorm and module.feature_axes in (-1, (-1,)):
    return channels
  if type(module) is nn.GroupNorm and module.reduction_axes is None:
    return module.num_groups or channels // (module.group_size or channels)
  return None


def _constant(
  network: Quantized, keys: tuple[str, ...], value: Any
) -> Constant:
  value = np.asarray(nn.meta.unbox(value))
  path = None
  if keys[0] == 'params':
    path = network.precision.weight_path(keys[1:], value)
    if path is None and value.ndim >= 2:
      path = '/'.join(keys[1:])
  if path is None:
    return Constant(value)
  found = integer_codes(value, MAX_CODE)
  scales = None
  if found is not None:
    scales = np.broadcast_to(found.scales, value.shape)
  return Constant(value, path, scales)


def _tensor(aval: Any) -> Tensor:
  return Tensor(sizes_of(aval.shape), np.dtype(aval.dtype))


def sizes_of(shape: Iterable[Any]) -> tuple[int, ...]:
  """A shape of JAX's, with multiples of `BATCH` for what the batch decides.

  Raises:
    UserError: a size depends on the batch in any other way.
  """
  sizes = []
  for n in shape:
    # 'batch', or '16*batch' where pixels are put into one axis with it.
    times = re.fullmatch(r'(?:(\d+)\*)?batch', str(n))
    if not isinstance(n, int) and times is None:
      raise UserError(
        f'the network computes with the number of examples (an array has a '
        f'side of {n}), which a graph cannot hold: export it as packed'
      )
    sizes.append(n if times is None else BATCH * int(times[1] or 1))
  return tuple(sizes)


def _constant_of(value: Any, weight: str = '') -> Constant:
  """A constant of float32 where it is of floats: see `_Reader._apply`."""
  value = np.asarray(value)
  if jax.numpy.issubdtype(value.dtype, np.floating):
    value = value.astype(np.float32)
  return Constant(value, weight)


class _Reader:
  """Turns jaxprs into nodes; calls are taken in, constants computed."""

  def __init__(self, steps: Sequence[Steps | None]) -> None:
    self.nodes: list[Node] = []
    self._steps = steps
    # Constants that every example gets, with an axis of 1 for the batch.
    self._of_each: set[Operand] = set()
    # What layers have made of constants, and what is therefore no weight.
    self._features: set[Operand] = set()

  def read(
    self, closed: Any, operands: Sequence[Operand], where: str
  ) -> list[Operand]:
    jaxpr = closed.jaxpr
    known: dict[Any, Operand] = dict(
      zip(jaxpr.invars, operands, strict=True)
    ) | {
      var: _constant_of(value)
      for var, value in zip(jaxpr.constvars, closed.consts, strict=True)
    }

    def look_up(var: Any) -> Operand:
      if isinstance(var, jex.core.Literal):
        return _constant_of(var.val)
      return known[var]

    for eqn in jaxpr.eqns:
      inputs = [look_up(v) for v in eqn.invars]
      place = '/'.join(filter(None, (where, str(eqn.source_info.name_stack))))
      outputs = self._apply(eqn, inputs, place)
      known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [look_up(v) for v in jaxpr.outvars]

  def _apply(
    self, eqn: Any, inputs: list[Operand], where: str
  ) -> list[Operand]:
    name = eqn.primitive.name
    if name in _CALLS:
      inner = eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))
      if not hasattr(inner, 'consts'):
        inner = jex.core.ClosedJaxpr(inner, ())
      return self.read(inner, inputs, where)
    if name in _NOTHING:
      return inputs
    if name == 'convert_element_type' and all(
      jax.numpy.issubdtype(x.dtype, np.floating)
      for x in (*inputs, *(v.aval for v in eqn.outvars))
    ):
      return inputs  # Graphs compute in float32 throughout.
    if all(isinstance(x, Constant) for x in inputs):
      computed = self._compute(eqn, inputs)
      if computed is not None:
        return computed
    inputs = [self._of_batch(x, where) for x in inputs]
    outputs = [_tensor(v.aval) for v in eqn.outvars]
    if name == 'split':
      axis, sizes = eqn.params['axis'], eqn.params['sizes']
      starts = np.cumsum([0, *sizes[:-1]])
      for start, output in zip(starts, outputs, strict=True):
        first = [0] * len(output.shape)
        first[axis] = int(start)
        params = {'start_indices': tuple(first), 'strides': None}
        self.nodes.append(Node('slice', tuple(inputs), output, params, where))
      return list(outputs)
    self.nodes += [
      Node(name, tuple(inputs), output, eqn.params, where) for output in outputs
    ]
    return list(outputs)

  def _of_batch(self, x: Operand, where: str) -> Operand:
    """A constant that every example gets, as a tensor of the whole batch."""
    if not isinstance(x, Constant) or x not in self._of_each:
      return x
    output = Tensor((BATCH, *x.shape[1:]), x.dtype)
    kept = {'broadcast_dimensions': tuple(range(1, len(x.shape)))}
    one = x.moved(lambda value: value[0])
    self.nodes.append(Node('broadcast_in_dim', (one,), output, kept, where))
    return output

  def _compute(self, eqn: Any, inputs: list[Any]) -> list[Operand] | None:
    """Constants of constants; None where the batch decides."""
    name, params = eqn.primitive.name, eqn.params
    shapes = [v.aval.shape for v in eqn.outvars]
    each = not self._of_each.isdisjoint(inputs)
    if each or not all(isinstance(n, int) for shape in shapes for n in shape):
      # What every example gets begins with a constant that is repeated. A
      # cumulative sum along the batch would differ from example to example.
      begins = name == 'broadcast_in_dim' and inputs
      if not (each or begins) or name.startswith('cum'):
        return None
      if any(
        sizes[:1] != (BATCH,) or min(sizes[1:], default=0) < 0
        for sizes in map(sizes_of, shapes)
      ):
        return None
      each, params = True, jax.tree.map(_of_one, dict(params))

    def bind(*values: Any) -> list[Array]:
      found = eqn.primitive.bind(*map(jax.numpy.asarray, values), **params)
      several = eqn.primitive.multiple_results
      return [np.asarray(x) for x in (found if several else [found])]

    found: list[Operand]
    features = not self._features.isdisjoint(inputs)
    if eqn.primitive is _quantize:
      steps, value = self._steps[params['call']], inputs[0].value
      found = [Constant(value if steps is None else steps.rounded(value))]
      features = True
    elif name in MOVES and len(inputs) == 1:
      found = [inputs[0].moved(lambda x: bind(x)[0])]
    else:
      # A weight that is computed with has other steps, to be found again.
      weight = next((x.weight for x in inputs if x.weight and not features), '')
      values = bind(*(x.value for x in inputs))
      found = [_constant_of(x, weight) for x in values]
    if each:
      self._of_each.update(found)
    if features:
      self._features.update(found)
    return found


def _of_one(param: Any) -> Any:
  """A parameter of a primitive, for a batch of one example."""
  if not hasattr(param, 'dimension_as_value'):  # JAX's symbolic sizes have it.
    return param
  (size,) = sizes_of((param,))
  return size // BATCH
