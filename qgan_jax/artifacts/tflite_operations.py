"""The operations of a plan other than layers, in LiteRT."""

from collections.abc import Callable, Sequence
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.tflite_builder import Builder, Value
from qgan_jax.artifacts.trace import BATCH, Constant, Node, Operand
from qgan_jax.errors import UserError

Array = np.ndarray
# JAX's primitives that are one operator on each element, and its options.
_ELEMENTWISE = {
  'add': ('ADD', 'Add'), 'sub': ('SUB', 'Sub'), 'mul': ('MUL', 'Mul'),
  'div': ('DIV', 'Div'), 'max': ('MAXIMUM', ''), 'min': ('MINIMUM', ''),
  'pow': ('POW', ''), 'neg': ('NEG', ''), 'abs': ('ABS', ''),
  'exp': ('EXP', ''), 'log': ('LOG', ''), 'sqrt': ('SQRT', ''),
  'rsqrt': ('RSQRT', ''), 'square': ('SQUARE', ''), 'tanh': ('TANH', ''),
  'logistic': ('LOGISTIC', ''), 'sin': ('SIN', ''), 'cos': ('COS', ''),
  'floor': ('FLOOR', ''), 'ceil': ('CEIL', ''), 'sign': ('SIGN', ''),
  'relu': ('RELU', ''), 'eq': ('EQUAL', ''), 'ne': ('NOT_EQUAL', ''),
  'lt': ('LESS', ''), 'le': ('LESS_EQUAL', ''), 'gt': ('GREATER', ''),
  'ge': ('GREATER_EQUAL', ''), 'and': ('LOGICAL_AND', ''),
  'or': ('LOGICAL_OR', ''), 'not': ('LOGICAL_NOT', ''),
}  # fmt: skip
_REDUCTIONS = {
  'reduce_sum': 'SUM', 'reduce_max': 'REDUCE_MAX', 'reduce_min': 'REDUCE_MIN',
}  # fmt: skip
_VALID = 1  # Of the schema's `Padding`.


class Operations:
  """Writes each node by the method `_op_…` with its name.

  Attributes:
    b: the graph's builder.
    values: what has been written, by the plan's tensor.
  """

  def __init__(self, b: Builder) -> None:
    self.b = b
    self.values: dict[Operand, Value] = {}
    self._numbers: dict[int, Value] = {}  # What has been read, by its codes.

  def write(self, node: Node) -> None:
    """Writes a node; its output can be read from then on.

    Raises:
      UserError: it cannot be written in LiteRT.
    """
    self.values[node.output] = self._written(node)

  def _written(self, node: Node) -> Value:
    if node.op in _ELEMENTWISE:
      return self._elementwise(node, *_ELEMENTWISE[node.op])
    if node.op in _REDUCTIONS:
      return self._reduced(node, _REDUCTIONS[node.op])
    write: Callable[[Node], Value] | None = getattr(
      self, f'_op_{node.op}', None
    )
    if write is None:
      raise self.unknown(node)
    return write(node)

  def moving(self, operand: Operand) -> Value:
    """A value for operations that only move it: codes stay codes."""
    if not isinstance(operand, Constant):
      return self.values[operand]
    array = operand.value
    if jnp.issubdtype(array.dtype, np.floating):
      array = array.astype(np.float32)
    return self.b.constant(array)

  def read(self, operand: Operand) -> Value:
    """A value as numbers."""
    value = self.moving(operand)
    if value.scales is None:
      return value
    if value.number not in self._numbers:
      y = self.b.op('DEQUANTIZE', [value], value.shape)
      if value.scales.offset:
        y = self._plus(y, value.scales.offset)
      self._numbers[value.number] = y
    return self._numbers[value.number]

  def apply(
    self, kind: str, *inputs: Value | Array | float, options: str = ''
  ) -> Value:
    """An elementwise operator of floats; numbers become constants."""
    values = [
      x if isinstance(x, Value) else self.b.constant(np.asarray(x, np.float32))
      for x in inputs
    ]
    shape = np.broadcast_shapes(*(x.shape for x in values))
    return self.b.op(kind, values, shape, options=options)

  def _plus(self, x: Value, y: Any) -> Value:
    return self.apply('ADD', x, y, options='Add')

  def _minus(self, x: Any, y: Any) -> Value:
    return self.apply('SUB', x, y, options='Sub')

  def _times(self, x: Value, y: Any) -> Value:
    return self.apply('MUL', x, y, options='Mul')

  # What computes each element by itself.

  def _elementwise(
    self, node: Node, kind: str, options: str = '', **fields: Any
  ) -> Value:
    values = [self.read(x) for x in node.inputs]
    shape = np.broadcast_shapes(*(x.shape for x in values))
    return self.b.op(
      kind, values, shape, _dtype(node), options=options, **fields
    )

  def _op_leaky_relu(self, node: Node) -> Value:
    return self._elementwise(
      node, 'LEAKY_RELU', 'LeakyRelu', alpha=node.params['slope']
    )

  def _op_select_n(self, node: Node) -> Value:
    which, *cases = node.inputs
    if len(cases) != 2 or which.dtype != bool:
      raise self.unknown(node)
    # JAX has the case of False first.
    turned = node._replace(inputs=(which, cases[1], cases[0]))
    return self._elementwise(turned, 'SELECT_V2')

  def _op_clamp(self, node: Node) -> Value:
    low, x, high = (self.read(x) for x in node.inputs)
    for kind, limit in (('MAXIMUM', low), ('MINIMUM', high)):
      x = self.b.op(kind, [x, limit], x.shape, x.dtype)
    return x

  def _op_integer_pow(self, node: Node) -> Value:
    x, power = self.read(node.inputs[0]), node.params['y']
    if power == 2:
      return self.apply('SQUARE', x)
    return self.apply('POW', x, power)

  def _op_expm1(self, node: Node) -> Value:
    return self._minus(self.apply('EXP', self.read(node.inputs[0])), 1)

  def _op_log1p(self, node: Node) -> Value:
    return self.apply('LOG', self._plus(self.read(node.inputs[0]), 1))

  def _op_convert_element_type(self, node: Node) -> Value:
    x = self.read(node.inputs[0])
    return self.b.op('CAST', [x], x.shape, _dtype(node))

  def _op_one_hot(self, node: Node) -> Value:
    labels, depth = self.read(node.inputs[0]), node.params['depth']
    counts = [self.b.constant(np.int32(depth))]
    counts += [self.b.constant(np.float32(v)) for v in (1, 0)]
    return self.b.op('ONE_HOT', [labels, *counts], (*labels.shape, depth),
                     options='OneHot', axis=-1)  # fmt: skip

  def _op_group_norm(self, node: Node) -> Value:
    """As x · a + b, with statistics of each channel, averaged over groups."""
    x, scale, bias = node.inputs
    size, epsilon = node.params['group_size'], node.params['epsilon']
    if not (isinstance(scale, Constant) and isinstance(bias, Constant)):
      raise self.unknown(node)
    value = self.read(x)
    gain, added = (v.value.reshape(-1, size) for v in (scale, bias))

    def grouped(x: Value) -> Value:
      each = self._summed('MEAN', x, (1, 2))
      each = self.b.shaped(each, (-1, *gain.shape))
      return self._summed('MEAN', each, (2,), keep=True)

    mean, square = grouped(value), grouped(self.apply('SQUARE', value))
    variance = self._minus(square, self.apply('SQUARE', mean))
    # Rounding may leave less than nothing of a constant feature map.
    variance = self._plus(self.apply('RELU', variance), epsilon)
    factor = self._times(self.apply('RSQRT', variance), gain)
    offset = self._minus(added, self._times(mean, factor))
    each = value.shape[0], 1, 1, value.shape[-1]
    factor, offset = (self.b.shaped(v, each) for v in (factor, offset))
    return self._plus(self._times(value, factor), offset)

  # What puts elements elsewhere.

  def _moved(
    self, kind: str, x: Value, places: Any, shape: Sequence[int], **options: Any
  ) -> Value:
    numbers = self.b.constant(np.asarray(places, np.int32))
    return self.b.op(kind, [x, numbers], shape, x.dtype, x.scales, **options)

  def turned(self, x: Value, order: Sequence[int]) -> Value:
    """The same value with its axes in another order."""
    if tuple(order) == tuple(range(len(order))):
      return x
    return self._moved('TRANSPOSE', x, order, [x.shape[a] for a in order])

  def _op_transpose(self, node: Node) -> Value:
    return self.turned(self.moving(node.inputs[0]), node.params['permutation'])

  def _op_reshape(self, node: Node) -> Value:
    shape = _for_one(node.output.shape)
    return self.b.shaped(self.moving(node.inputs[0]), shape)

  _op_squeeze = _op_expand_dims = _op_reshape

  def _op_broadcast_in_dim(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    sizes = dict(zip(node.params['broadcast_dimensions'], x.shape, strict=True))
    whole = _for_one(node.output.shape)
    x = self.b.shaped(x, [sizes.get(i, 1) for i in range(len(whole))])
    if whole == x.shape:
      return x
    return self._moved('BROADCAST_TO', x, whole, whole)

  def _op_slice(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    starts, strides = node.params['start_indices'], node.params['strides']
    stops = [
      start + (n - 1) * (strides[axis] if strides else 1) + 1
      for axis, (start, n) in enumerate(
        zip(starts, _for_one(node.output.shape), strict=True)
      )
    ]
    return self.b.slice(x, starts, stops, range(len(stops)), strides)

  def _op_rev(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    for axis in node.params['dimensions']:
      x = self._moved('REVERSE_V2', x, [axis], x.shape)
    return x

  def _op_pad(self, node: Node) -> Value:
    x, fill = node.inputs
    config = node.params['padding_config']
    if any(min(low, high) < 0 or inside for low, high, inside in config):
      raise self.unknown(node)
    if not isinstance(fill, Constant):
      raise self.unknown(node)
    pads = {axis: pair[:2] for axis, pair in enumerate(config)}
    return self.b.padded(self.read(x), pads, fill=fill.value.item())

  def _op_concatenate(self, node: Node) -> Value:
    values = [self.moving(x) for x in node.inputs]
    if any(x.scales != values[0].scales for x in values):
      values = [self.read(x) for x in node.inputs]
    return self.b.concat(values, node.params['dimension'])

  def _op_repeat(self, node: Node) -> Value:
    """Nearest neighbours, of codes where there are some."""
    x, times = self.moving(node.inputs[0]), node.params['times']
    shape = [n * t for n, t in zip(x.shape, times, strict=True)]
    if len(shape) == 4 and times[0] == times[3] == 1:
      return self._moved('RESIZE_NEAREST_NEIGHBOR', x, shape[1:3], shape,
                         options='ResizeNearestNeighbor')  # fmt: skip
    for axis, count in enumerate(times):
      x = self._taken(x, np.repeat(np.arange(x.shape[axis]), count), axis)
    return x

  def _op_take(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    return self._taken(x, node.params['indices'], node.params['axis'])

  def _taken(self, x: Value, indices: Array, axis: int) -> Value:
    shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
    return self._moved('GATHER', x, indices, shape, options='Gather', axis=axis)

  def _op_gather(self, node: Node) -> Value:
    """Rows of a table, as an embedding has them."""
    table, indices = node.inputs
    numbers, shape = node.params['dimension_numbers'], node.output.shape
    rows = len(indices.shape) - 1
    plain = (
      numbers.start_index_map == numbers.collapsed_slice_dims == (0,)
      and numbers.offset_dims == tuple(range(rows, len(shape)))
      and tuple(node.params['slice_sizes'][1:]) == table.shape[1:]
    )
    if not plain:
      raise self.unknown(node)
    ids = self.read(indices)
    ids = self.b.shaped(ids, ids.shape[:-1])
    shape = (*ids.shape, *table.shape[1:])
    return self.b.op('GATHER', [self.read(table), ids], shape,
                     options='Gather', axis=0)  # fmt: skip

  # What adds elements up.

  def _reduced(self, node: Node, kind: str) -> Value:
    return self._summed(kind, self.read(node.inputs[0]), node.params['axes'])

  def _summed(
    self, kind: str, x: Value, axes: Sequence[int], *, keep: bool = False
  ) -> Value:
    left = [n for a, n in enumerate(x.shape) if a not in axes]
    shape = [n if a not in axes else 1 for a, n in enumerate(x.shape)]
    return self._moved(kind, x, axes, shape if keep else left,
                       options='Reducer', keepDims=keep)  # fmt: skip

  def _op_dot_general(self, node: Node) -> Value:
    """A product of two tensors that are both computed."""
    (ours, theirs), (batch, their_batch) = node.params['dimension_numbers']
    x, y = (self.read(v) for v in node.inputs)
    rows = [a for a in range(len(x.shape)) if a not in (*ours, *batch)]
    columns = [a for a in range(len(y.shape))
               if a not in (*theirs, *their_batch)]  # fmt: skip
    if not len(ours) == len(rows) == len(columns) == 1:
      raise self.unknown(node)
    left = self.turned(x, (*batch, *rows, *ours))
    right = self.turned(y, (*their_batch, *theirs, *columns))
    shape = (*left.shape[:-1], right.shape[-1])
    return self.b.op('BATCH_MATMUL', [left, right], shape,
                     options='BatchMatMul')  # fmt: skip

  def _pooled(self, node: Node, kind: str, fill: float) -> Value:
    params = node.params
    window, padding = params['window_dimensions'], params['padding']
    spread = {*params['base_dilation'], *params['window_dilation']}
    if len(window) != 4 or window[::3] != (1, 1) or spread != {1}:
      raise self.unknown(node)
    x = self.read(node.inputs[0])
    x = self.b.padded(x, dict(enumerate(padding)), fill=fill)
    strides = params['window_strides']
    return self.b.op(
      kind, [x], _for_one(node.output.shape), options='Pool2D', padding=_VALID,
      strideH=strides[1], strideW=strides[2], filterHeight=window[1],
      filterWidth=window[2],
    )  # fmt: skip

  def _op_reduce_window_max(self, node: Node) -> Value:
    lowest = float(np.finfo(np.float32).min)
    return self._pooled(node, 'MAX_POOL_2D', lowest)

  def _op_reduce_window_sum(self, node: Node) -> Value:
    average = self._pooled(node, 'AVERAGE_POOL_2D', 0)
    count = math.prod(node.params['window_dimensions'])
    return self._times(average, count)

  def unknown(self, node: Node) -> UserError:
    """The error for an operation that cannot be written."""
    return UserError(
      f'{node.where or "the network"} has the operation {node.op}, which this '
      'cannot write in LiteRT: export --format=packed or stablehlo'
    )


def _for_one(shape: Sequence[int]) -> tuple[int, ...]:
  """A shape of the plan for a batch of one example."""
  return tuple(n // BATCH if n < 0 else n for n in shape)


def _dtype(node: Node) -> Any:
  """Of a node's output: floats of any size are float32."""
  dtype = node.output.dtype
  return np.float32 if jnp.issubdtype(dtype, np.floating) else dtype
