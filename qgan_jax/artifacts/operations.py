"""Recognizes operations of runtimes in sequences of JAX's primitives.

A trace spells out what a runtime does in one operation: a leaky ReLU is a
comparison, a product and a choice; nearest-neighbour upsampling is a new axis
that is merged. They are recognized by what they compute, not by the name of the
function that was called.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from qgan_jax.artifacts.trace import (
  Constant,
  Node,
  Operand,
  sizes_of,
  Tensor,
)

Array = np.ndarray
_UNARY = frozenset({
  'relu', 'leaky_relu', 'tanh', 'logistic', 'exp', 'neg', 'abs', 'integer_pow',
  'quantize',
})  # fmt: skip


def recognized(nodes: tuple[Node, ...]) -> list[Node]:
  """The nodes, with sequences replaced by single operations of a runtime."""
  made: dict[Operand, Node] = {node.output: node for node in nodes}
  found = []
  for node in nodes:
    sources = [made.get(x) if isinstance(x, Tensor) else None
               for x in node.inputs]  # fmt: skip
    match node.op, node.inputs:
      case 'max', (x, Constant(value)) | (Constant(value), x) if (
        value.size == 1 and value.item() == 0
      ):
        node = node._replace(op='relu', inputs=(x,), params={})
      case 'select_n', (_, _, x):
        slope = _slope(x, sources[0], sources[1])
        if slope is not None:
          node = node._replace(
            op='leaky_relu', inputs=(x,), params={'slope': slope}
          )
      case 'convert_element_type', (_,) if (test := sources[0]) is not None:
        labels = _labels(test, made)
        if labels is not None:
          depth = test.output.shape[1]
          node = node._replace(
            op='one_hot', inputs=(labels,), params={'depth': depth}
          )
      case 'reshape', (_,) if (before := sources[0]) is not None:
        times = _repeats(node, before)
        if times is not None:
          node = node._replace(
            op='repeat', inputs=before.inputs, params={'times': times}
          )
      case 'gather', (x, Constant(indices)) if indices.ndim == 1:
        found += _cut_out(node, x, indices)
        continue
      case 'gather', (x, Constant(indices)):
        node = _taken(node, x, indices)
    made[node.output] = node
    found.append(node)
  return found


def _labels(test: Node, made: Mapping[Operand, Node]) -> Operand | None:
  """What is compared with 0, 1, 2, …, as one-hot encoding does."""
  if test.op != 'eq' or len(test.output.shape) != 2:
    return None
  x, numbers = test.inputs
  wide = made.get(x)
  counted = np.arange(test.output.shape[1])[None]
  if not isinstance(numbers, Constant) or numbers.shape != counted.shape:
    return None
  if (numbers.value != counted).any() or wide is None:
    return None
  if wide.op not in ('broadcast_in_dim', 'reshape', 'expand_dims'):
    return None
  (labels,) = wide.inputs
  whole = np.issubdtype(labels.dtype, np.integer)
  return labels if whole and labels.shape == x.shape[:1] else None


def _slope(
  x: Operand, condition: Node | None, other: Node | None
) -> float | None:
  """The a of where(x ≥ 0, x, a·x); None of another choice."""
  if condition is None or other is None or condition.op not in ('ge', 'gt'):
    return None
  against = condition.inputs[1]
  if condition.inputs[0] is not x or other.op != 'mul':
    return None
  if not isinstance(against, Constant) or against.value.any():
    return None
  factors = [f for f in other.inputs if isinstance(f, Constant)]
  if x not in other.inputs or len(factors) != 1 or factors[0].value.size != 1:
    return None
  return float(factors[0].value.item())


def _repeats(node: Node, before: Node) -> tuple[int, ...] | None:
  """How often each axis is repeated by a new axis that is then merged."""
  if before.op != 'broadcast_in_dim':
    return None
  x, wide, shape = before.inputs[0], before.output.shape, node.output.shape
  kept = before.params['broadcast_dimensions']
  new = set(range(len(wide))) - set(kept)
  if len(new) != 1 or len(shape) != len(x.shape) or wide[0] != x.shape[0]:
    return None
  (axis,) = new
  if axis < 2 or any(wide[a] != n for a, n in zip(kept, x.shape, strict=True)):
    return None
  times = tuple(wide[axis] if i == axis - 1 else 1 for i in range(len(shape)))
  repeated = tuple(
    n if n < 0 else n * t for n, t in zip(x.shape, times, strict=True)
  )
  return times if shape == repeated else None


def _cut_out(node: Node, x: Operand, starts: Array) -> list[Node]:
  """A gather at one place, which is a slice, as x[:, 0] or x[:, :7] is."""
  numbers, sizes = node.params['dimension_numbers'], node.params['slice_sizes']
  first = [0] * len(x.shape)
  for axis, start in zip(numbers.start_index_map, starts, strict=True):
    first[axis] = int(start)
  shape = sizes_of(sizes)
  nodes = []
  if shape != x.shape:
    y = Tensor(shape, x.dtype)
    nodes.append(node._replace(op='slice', inputs=(x,), output=y, params={
      'start_indices': tuple(first), 'strides': None}))  # fmt: skip
    x = y
  if shape == node.output.shape:
    return [nodes[0]._replace(output=node.output)]
  return [*nodes, node._replace(op='reshape', inputs=(x,), params={})]


def _taken(node: Node, x: Operand, indices: Array) -> Node:
  """A gather of whole slices along one axis by fixed indices."""
  numbers = node.params['dimension_numbers']
  if len(numbers.start_index_map) != 1 or indices.shape[-1] != 1:
    return node
  (axis,) = numbers.start_index_map
  others = [n for i, n in enumerate(x.shape) if i != axis]
  shape = [n for i, n in enumerate(node.output.shape) if i != axis]
  if numbers.collapsed_slice_dims != (axis,) or others != shape:
    return node
  order, length = indices.reshape(-1), x.shape[axis]
  node = node._replace(op='take', inputs=(x,),
                       params={'axis': axis, 'indices': order})  # fmt: skip
  times = len(order) // length
  if (
    len(order) == times * length
    and axis > 0
    and (order == np.repeat(np.arange(length), times)).all()
  ):
    all_times = tuple(times if i == axis else 1 for i in range(len(x.shape)))
    node = node._replace(op='repeat', params={'times': all_times})
  return node


def repeat_late(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
  """Moves repeats as late as possible: to codes, with all axes in one node."""
  nodes_ = list(nodes)
  moved = True
  while moved:
    moved = False
    uses = Counter(x for node in nodes_ for x in node.inputs)
    places: dict[Operand, int] = {
      node.output: i for i, node in enumerate(nodes_)
    }
    for i, node in enumerate(nodes_):
      place = places.get(node.inputs[0], i)
      before = nodes_[place]
      if place == i or before.op != 'repeat' or uses[before.output] != 1:
        continue
      times = before.params['times']
      if node.op == 'repeat':
        both = zip(times, node.params['times'], strict=True)
        nodes_[i] = node._replace(
          inputs=before.inputs, params={'times': tuple(a * b for a, b in both)}
        )
        del nodes_[place]
      elif node.op in _UNARY:
        small = Tensor(before.inputs[0].shape, node.output.dtype)
        nodes_[place] = node._replace(inputs=before.inputs, output=small)
        nodes_[i] = before._replace(inputs=(small,), output=node.output)
      else:
        continue
      moved = True
      break
  return tuple(nodes_)
