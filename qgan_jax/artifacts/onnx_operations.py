"""The operations of a plan other than layers, in ONNX."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qgan_jax.artifacts.onnx_values import FIRST, Value, Values
from qgan_jax.artifacts.trace import BATCH, Constant, Node
from qgan_jax.errors import UserError

# JAX's primitives that are one operation of ONNX on each element.
_ELEMENTWISE = {
  'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max',
  'min': 'Min', 'pow': 'Pow', 'neg': 'Neg', 'abs': 'Abs', 'exp': 'Exp',
  'log': 'Log', 'sqrt': 'Sqrt', 'tanh': 'Tanh', 'logistic': 'Sigmoid',
  'erf': 'Erf', 'sin': 'Sin', 'cos': 'Cos', 'floor': 'Floor', 'ceil': 'Ceil',
  'sign': 'Sign', 'relu': 'Relu', 'eq': 'Equal', 'lt': 'Less',
  'le': 'LessOrEqual', 'gt': 'Greater', 'ge': 'GreaterOrEqual', 'and': 'And',
  'or': 'Or', 'not': 'Not',
}  # fmt: skip
_REDUCTIONS = {
  'reduce_sum': 'ReduceSum',
  'reduce_max': 'ReduceMax',
  'reduce_min': 'ReduceMin',
}


class Operations(Values):
  """Writes each node by the method `_op_…` with its name."""

  def write(self, node: Node) -> None:
    """Writes a node; its output can be read from then on.

    Raises:
      UserError: it cannot be written in ONNX.
    """
    self.values[node.output] = self._written(node)

  def _written(self, node: Node) -> Value:
    if node.op in _ELEMENTWISE:
      return self._elementwise(node, _ELEMENTWISE[node.op])
    if node.op in _REDUCTIONS:
      return self._reduced(node, _REDUCTIONS[node.op])
    write: Callable[[Node], Value] | None = getattr(
      self, f'_op_{node.op}', None
    )
    if write is None:
      raise self.unknown(node)
    return write(node)

  # What computes each element by itself.

  def _elementwise(self, node: Node, kind: str, **attributes: Any) -> Value:
    values = [self.read(x) for x in node.inputs]
    shape = node.output.shape
    full = [v.axes for v, x in zip(values, node.inputs, strict=True)
            if v.shape == shape and not isinstance(x, Constant)]  # fmt: skip
    # Most of them stand in this order, and none has to be turned.
    axes = full[0] if full else tuple(range(len(shape)))
    names = [
      (self.turned(v, axes) if len(v.shape) == len(axes) else v).name
      for v in values
    ]
    return Value(self.b.op(kind, *names, **attributes), shape, axes)

  def _op_leaky_relu(self, node: Node) -> Value:
    return self._elementwise(node, 'LeakyRelu', alpha=node.params['slope'])

  def _op_select_n(self, node: Node) -> Value:
    which, *cases = node.inputs
    if len(cases) != 2 or which.dtype != bool:
      raise self.unknown(node)
    # JAX has the case of False first.
    return self._elementwise(
      node._replace(inputs=(which, cases[1], cases[0])), 'Where'
    )

  def _op_clamp(self, node: Node) -> Value:
    low, x, high = node.inputs
    if low.shape or high.shape:
      raise self.unknown(node)
    return self._elementwise(node._replace(inputs=(x, low, high)), 'Clip')

  def _op_integer_pow(self, node: Node) -> Value:
    (x,) = node.inputs
    if node.params['y'] == 2:
      return self._elementwise(node._replace(inputs=(x, x)), 'Mul')
    power = Constant(np.array(node.params['y'], np.float32))
    return self._elementwise(node._replace(inputs=(x, power)), 'Pow')

  def _op_square(self, node: Node) -> Value:
    (x,) = node.inputs
    return self._elementwise(node._replace(inputs=(x, x)), 'Mul')

  def _op_rsqrt(self, node: Node) -> Value:
    root = self._elementwise(node, 'Sqrt')
    return root._replace(name=self.b.op('Reciprocal', root.name))

  def _op_expm1(self, node: Node) -> Value:
    power = self._elementwise(node, 'Exp')
    return power._replace(name=self._plus(power.name, 'Sub', 1))

  def _op_log1p(self, node: Node) -> Value:
    x = self.read(node.inputs[0])
    more = self._plus(x.name, 'Add', 1)
    return x._replace(name=self.b.op('Log', more))

  def _op_erfc(self, node: Node) -> Value:
    y = self._elementwise(node, 'Erf')
    return y._replace(name=self.b.op('Neg', self._plus(y.name, 'Sub', 1)))

  def _plus(self, x: str, kind: str, value: float) -> str:
    return self.b.op(kind, x, self.b.constant(np.float32(value)))

  def _op_ne(self, node: Node) -> Value:
    equal = self._elementwise(node, 'Equal')
    return equal._replace(name=self.b.op('Not', equal.name))

  def _op_convert_element_type(self, node: Node) -> Value:
    x = self.read(node.inputs[0])
    return x._replace(name=self.b.cast(x.name, node.output.dtype))

  def _op_one_hot(self, node: Node) -> Value:
    name = self.b.op(
      'OneHot',
      self.b.cast(self.straight(node.inputs[0]), np.int64),
      self.b.constant(np.int64(node.params['depth'])),
      self.b.constant(np.array([0, 1], np.float32)),
    )
    return Value(name, node.output.shape, (0, 1))

  # What puts elements elsewhere.

  def _op_transpose(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    order = node.params['permutation']
    axes = tuple(order.index(a) for a in x.axes)
    return x._replace(shape=node.output.shape, axes=axes)

  def _op_reshape(self, node: Node) -> Value:
    shape = node.output.shape
    x = self.moving(node.inputs[0])
    x = self.turned(x, tuple(range(len(x.shape))))
    if sum(n < 0 for n in shape) > 1:
      raise self.unknown(node)
    name = self.b.op('Reshape', x.name, self.places(shape))
    return x._replace(name=name, shape=shape, axes=tuple(range(len(shape))))

  _op_squeeze = _op_expand_dims = _op_reshape

  def _op_broadcast_in_dim(self, node: Node) -> Value:
    shape, kept = node.output.shape, node.params['broadcast_dimensions']
    x = self.read(node.inputs[0])
    sizes = dict(zip(kept, x.shape, strict=True))
    ones = [sizes.get(i, 1) for i in range(len(shape))]
    name = self.turned(x, tuple(range(len(x.shape)))).name
    if len(ones) != len(x.shape):
      name = self.b.op('Reshape', name, self.places(ones))
    wider = [1 if n == one else n for n, one in zip(shape, ones, strict=True)]
    if set(wider) != {1}:
      name = self.b.op('Expand', name, self._sizes(wider))
    return Value(name, shape, tuple(range(len(shape))))

  def places(self, shape: Sequence[int]) -> str:
    """A shape to bring elements into, of which the batch is what remains."""
    return self.b.constant(np.maximum(shape, BATCH))

  def _sizes(self, shape: list[int]) -> str:
    """A shape as a tensor; `BATCH` is that of the first input."""
    if min(shape) > 0:
      return self.b.constant(np.array(shape))
    batch = self.b.op('Shape', next(iter(self.inputs)), start=0, end=1)

    def size(n: int) -> str:
      if n == BATCH:
        return batch
      number = self.b.constant(np.array([abs(n)]))
      return self.b.op('Mul', batch, number) if n < 0 else number

    return self.b.op('Concat', *map(size, shape), axis=0)

  def _op_slice(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    shape, starts = node.output.shape, node.params['start_indices']
    strides = node.params['strides'] or (1,) * len(shape)
    cut = [i for i, n in enumerate(shape) if n != x.shape[i]]
    name = self.b.slice(
      x.name,
      [starts[i] for i in cut],
      [starts[i] + (shape[i] - 1) * strides[i] + 1 for i in cut],
      [x.axes.index(i) for i in cut],
      [strides[i] for i in cut],
    )
    return x._replace(name=name, shape=shape)

  def _op_rev(self, node: Node) -> Value:
    x = self.moving(node.inputs[0])
    turned = node.params['dimensions']
    least = int(np.iinfo(np.int32).min)
    name = self.b.slice(
      x.name,
      [-1] * len(turned),
      [least] * len(turned),
      [x.axes.index(i) for i in turned],
      [-1] * len(turned),
    )
    return x._replace(name=name)

  def _op_pad(self, node: Node) -> Value:
    x, fill = node.inputs
    config = node.params['padding_config']
    if any(min(low, high) < 0 or inside for low, high, inside in config):
      raise self.unknown(node)
    value = self.read(x)
    pads = [config[a][side] for side in (0, 1) for a in value.axes]
    name = self.b.op('Pad', value.name, self.b.constant(np.array(pads)),
                     self.read(fill).name)  # fmt: skip
    return value._replace(name=name, shape=node.output.shape)

  def _op_concatenate(self, node: Node) -> Value:
    values = [self.moving(x) for x in node.inputs]
    steps, coded = values[0].steps, values[0].coded
    if any((v.steps, v.coded) != (steps, coded) for v in values):
      values, steps, coded = [self.read(x) for x in node.inputs], None, False
    axes = next((v.axes for v, x in zip(values, node.inputs, strict=True)
                 if not isinstance(x, Constant)), values[0].axes)  # fmt: skip
    name = self.b.op(
      'Concat',
      *(self.turned(v, axes).name for v in values),
      axis=axes.index(node.params['dimension']),
    )
    return Value(name, node.output.shape, axes, steps, coded)

  def _op_repeat(self, node: Node) -> Value:
    """Nearest neighbours, on codes where there are some."""
    x = self.coded(self.moving(node.inputs[0]))
    times, shape = node.params['times'], node.output.shape
    if self.first and len(shape) == 4:
      x = self.turned(x, FIRST)
      scales = np.array([times[a] for a in x.axes], np.float32)
      name = self.b.op(
        'Resize', x.name, '', self.b.constant(scales), mode='nearest',
        coordinate_transformation_mode='asymmetric', nearest_mode='floor',
      )  # fmt: skip
      return x._replace(name=name, shape=shape)
    x = self.turned(x, tuple(range(len(shape))))
    name, sizes = x.name, list(x.shape)
    for axis, count in enumerate(times):
      if count > 1:
        before, behind = sizes[1 : axis + 1], sizes[axis + 1 :]
        name = self.b.reshape(name, *before, 1, *behind)
        name = self.b.op('Concat', *[name] * count, axis=axis + 1)
        sizes[axis] *= count
        name = self.b.reshape(name, *sizes[1:])
    return x._replace(name=name, shape=shape)

  def _op_take(self, node: Node) -> Value:
    x = self.read(node.inputs[0])
    indices = self.b.constant(node.params['indices'].astype(np.int64))
    axis = x.axes.index(node.params['axis'])
    name = self.b.op('Gather', x.name, indices, axis=axis)
    return x._replace(name=name, shape=node.output.shape)

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
    ids = self.b.reshape(self.straight(indices), *indices.shape[1:-1])
    name = self.b.op('Gather', self.straight(table), ids, axis=0)
    return Value(name, shape, tuple(range(len(shape))))

  # What adds elements up.

  def _reduced(self, node: Node, kind: str) -> Value:
    x = self.read(node.inputs[0])
    gone = node.params['axes']
    places = self.b.constant(np.array([x.axes.index(a) for a in gone]))
    name = self.b.op(kind, x.name, places, keepdims=0)
    left = [a for a in range(len(x.shape)) if a not in gone]
    axes = tuple(left.index(a) for a in x.axes if a in left)
    return Value(name, node.output.shape, axes)

  def _op_dot_general(self, node: Node) -> Value:
    """A product of two tensors that are both computed."""
    (ours, theirs), (batch, their_batch) = node.params['dimension_numbers']
    x, y = node.inputs
    rows = [a for a in range(len(x.shape)) if a not in (*ours, *batch)]
    columns = [a for a in range(len(y.shape))
               if a not in (*theirs, *their_batch)]  # fmt: skip
    if not len(ours) == len(rows) == len(columns) == 1:
      raise self.unknown(node)
    left = self.turned(self.read(x), (*batch, *rows, *ours))
    right = self.turned(self.read(y), (*their_batch, *theirs, *columns))
    shape = node.output.shape
    name = self.b.op('MatMul', left.name, right.name)
    return Value(name, shape, tuple(range(len(shape))))

  def _pooled(self, node: Node, kind: str, fill: float) -> Value:
    params = node.params
    window, padding = params['window_dimensions'], params['padding']
    spread = {*params['base_dilation'], *params['window_dilation']}
    if len(window) != 4 or window[::3] != (1, 1) or spread != {1}:
      raise self.unknown(node)
    x = self.turned(self.read(node.inputs[0]), FIRST)
    name, strides = x.name, params['window_strides'][1:3]
    if np.any(padding):
      pads = np.transpose(padding)[:, list(FIRST)].reshape(-1)
      name = self.b.op('Pad', name, self.b.constant(pads.astype(np.int64)),
                       self.b.constant(np.float32(fill)))  # fmt: skip
    height, width = window[1:3]
    if kind == 'Sum':
      # By shifted sums: OpenVINO's averages of what is padded can be wrong.
      size = node.output.shape[1:3]
      parts = [
        self.b.slice(
          name,
          [i, j],
          [start + (n - 1) * s + 1 for start, n, s
           in zip((i, j), size, strides, strict=True)],
          [2, 3],
          list(strides),
        )
        for i in range(height)
        for j in range(width)
      ]  # fmt: skip
      name = self.b.op('Sum', *parts)
    else:
      name = self.b.op(kind, name, kernel_shape=[height, width],
                       strides=strides)  # fmt: skip
    return Value(name, node.output.shape, FIRST)

  def _op_reduce_window_max(self, node: Node) -> Value:
    return self._pooled(node, 'MaxPool', float(np.finfo(np.float32).min))

  def _op_reduce_window_sum(self, node: Node) -> Value:
    return self._pooled(node, 'Sum', 0)

  def unknown(self, node: Node) -> UserError:
    """The error for an operation that cannot be written."""
    return UserError(
      f'{node.where or "the network"} has the operation {node.op}, which this '
      'cannot write in ONNX: export --format=packed or stablehlo'
    )
