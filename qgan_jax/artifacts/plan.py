"""A network as a graph of integer layers, from which exports are written.

It is made from a trace, and does not depend on families of networks. Products
with weights become layers. What is added to or multiplied with a layer's output
for each channel is merged into the layer (a bias, a BatchNorm). Images are
repeated after they are quantized, not before. A quantizer after a ReLU has no
codes below 0.
"""

from collections import Counter
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from qgan_jax.artifacts.activation_steps import described, REMEDY
from qgan_jax.artifacts.inference import latents_of
from qgan_jax.artifacts.layer import (
  codes_of,
  Layer,
  of_ones,
  Window,
  with_operation,
)
from qgan_jax.artifacts.levels import (
  Steps,
)
from qgan_jax.artifacts.operations import recognized, repeat_late
from qgan_jax.artifacts.trace import (
  Constant,
  MAX_CODE,
  MOVES,
  needed,
  Node,
  Operand,
  Tensor,
  trace,
)
from qgan_jax.errors import UserError
from qgan_jax.precision import Quantized

Array = np.ndarray
_NEVER_NEGATIVE = frozenset({
  'relu', 'logistic', 'exp', 'abs', 'square', 'one_hot',
})  # fmt: skip
_HALFWAY = 1e-3  # Of a step: what is so near to its middle may be rounded up.
_KEEP_SIGNS = MOVES | {'repeat', 'concatenate', 'add', 'mul', 'reduce_max'}


@dataclasses.dataclass(frozen=True)
class Plan:
  """A whole network.

  Attributes:
    inputs: of the network, the batch axis first.
    nodes: operations by JAX's names, and those that stand for several: a
      'layer' (its index in `layers` is in its `params`), 'quantize' (its index
      in `steps`), 'group_norm', 'relu', 'leaky_relu', 'repeat'.
    output: images.
    layers: in the order of their nodes.
    steps: of the quantizers.
    latents: as `latents_of` returns it; None if it is not called with latents.
  """

  inputs: tuple[Tensor, ...]
  nodes: tuple[Node, ...]
  output: Tensor
  layers: tuple[Layer, ...]
  steps: tuple[Steps | None, ...] = ()
  latents: tuple[int, int] | None = None

  @property
  def needs_vnni(self) -> bool:
    """Whether its graph gives wrong results on x86 processors without VNNI."""
    return any(layer.needs_vnni for layer in self.layers)

  def named_inputs(self) -> dict[str, Tensor]:
    """The inputs by their names in a graph."""
    named: dict[str, Tensor] = {}
    for tensor in self.inputs:
      whole = np.issubdtype(tensor.dtype, np.integer)
      rank = len(tensor.shape)
      # `images` is the output's name.
      kind = 'labels' if whole else 'input_images' if rank == 4 else 'latents'
      named[kind if kind not in named else f'{kind}{len(named)}'] = tensor
    return named

  def record(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the graph in a file, beside other metadata."""
    latent_dim, num_classes = self.latents or (None, None)
    return {
      **metadata,
      'version': 1,
      'integer': any(layer.codes is not None for layer in self.layers),
      'latent_dim': latent_dim,
      'num_classes': num_classes,
      'inputs': [[x.shape[1:], x.dtype.name] for x in self.inputs],
      'image_shape': self.output.shape[1:],
    }


def make_plan(network: Quantized, *, integer: bool, split: bool = True) -> Plan:
  """Makes a plan of a network.

  Args:
    network: any network with known `inputs`.
    integer: whether every product with weights has to be in integers.
    split: whether layers that need VNNI are multiplied in two parts, which
      makes them exact on every processor and up to twice as slow.

  Returns:
    The plan. Without `integer` its kernels are the quantized values, and
    activations are not quantized.

  Raises:
    UserError: the network cannot be traced; or `integer` is asked for, and the
      weights or activations of a layer, which the message names, are not
      integers.
  """
  traced = trace(network, mark=integer)
  nodes = needed(recognized(traced.nodes), traced.output)
  planner = _Planner(network, traced.calls, list(traced.steps), integer, nodes)
  plan = Plan(
    traced.inputs,
    repeat_late(needed(planner.nodes, traced.output)),
    traced.output,
    tuple(planner.layers),
    tuple(planner.steps),
    latents_of(network),
  )
  return dataclasses.replace(plan, layers=tuple(
    dataclasses.replace(layer, split=split and layer.needs_vnni)
    for layer in plan.layers
  ))  # fmt: skip


class _Planner:
  """Makes layers of a trace's products, node by node."""

  def __init__(
    self,
    network: Quantized,
    calls: tuple[str, ...],
    steps: list[Steps | None],
    integer: bool,
    nodes: tuple[Node, ...],
  ) -> None:
    self.network, self.calls, self.integer = network, calls, integer
    self.steps = steps
    self.nodes: list[Node] = []
    self.layers: list[Layer] = []
    self._uses = Counter(x for node in nodes for x in node.inputs)
    # Layers that can take more in, by their output: (in layers, in nodes).
    self._open: dict[Operand, tuple[int, int]] = {}
    self._call: dict[Operand, int] = {}  # Of the quantizer behind a tensor.
    self._positive: set[Operand] = set()
    for node in nodes:
      self._add(node)

  def _add(self, node: Node) -> None:
    if node.op == 'conv_general_dilated' and isinstance(
      node.inputs[1], Constant
    ):
      self._convolution(node)
    elif node.op == 'dot_general' and any(
      isinstance(x, Constant) for x in node.inputs
    ):
      self._dense(node)
    elif not self._taken_in(node):
      self._append(node)

  def _append(self, node: Node) -> Tensor:
    self.nodes.append(node)
    x, y = next(iter(node.inputs), None), node.output
    if node.op in _NEVER_NEGATIVE or (
      node.op in _KEEP_SIGNS
      and all(
        v in self._positive
        or (isinstance(v, Constant) and not (v.value < 0).any())
        for v in node.inputs
      )
    ):
      self._positive.add(y)
    if node.op == 'quantize':
      call = node.params['call']
      self._call[y] = call
      step = self.steps[call]
      if x in self._positive and step is not None and step.offset:
        self._refuse_ties(call, step)
      elif x in self._positive and step is not None:
        # No code below 0 occurs; runtimes are fastest without.
        self.steps[call] = Steps(step.scale, 0, step.levels - step.zero_point)
    elif node.op in MOVES | {'repeat'} and x in self._call:
      self._call[y] = self._call[x]
    elif node.op == 'concatenate':
      # Of parts of one input, as circular padding has them.
      found = {self._call.get(part) for part in node.inputs}
      (call, *others) = found
      if call is not None and not others:
        self._call[y] = call
    return y

  def _refuse_ties(self, call: int, step: Steps) -> None:
    """Refuses steps between two of which 0 lies, where a ReLU leaves many.

    Runtimes round what is halfway differently: some before they add the zero
    point, some after.
    """
    if abs(abs(step.offset / step.scale) - 0.5) < _HALFWAY:
      activations = described(self.network, 'activations', self.calls[call])
      raise UserError(
        f'{activations} have no level at 0, which a ReLU leaves in many '
        f'places, and each runtime would round it to another one: {REMEDY}'
      )

  # What follows makes layers.

  def _layer(
    self, node: Node, x: Operand, weight: Constant, output: Tensor, **kwargs
  ) -> Tensor:
    """Appends a layer; its weight's last axis is the output's channels."""
    call = self._call.get(x)
    steps = None if call is None else self.steps[call]
    name = self.calls[call] if call is not None else weight.weight
    codes = None
    if self.integer and weight.weight:
      codes = codes_of(weight)
      if codes is None or codes.codes.max() > MAX_CODE - 1:
        weights = described(self.network, 'weights', weight.weight)
        raise UserError(
          f'{weights} are not integers from {-MAX_CODE} to {MAX_CODE - 1} '
          'times one step for each channel, and an integer graph has nothing '
          f'else: {REMEDY}'
        )
      self._check_quantized(x, weight)
    layer = Layer(
      name,
      weight.value,
      codes,
      steps and steps._replace(offset=0.0),
      np.zeros(weight.shape[-1], np.float32),
      **kwargs,
    )
    self.layers.append(layer)
    number = len(self.layers) - 1
    offset = steps.offset if steps is not None else 0.0
    y = Tensor(output.shape, output.dtype) if offset else output
    self._append(Node('layer', (x,), y, {'layer': number}, node.where))
    if offset:
      added = self._made_of(offset, layer, x, node)
      self._append(Node('add', (y, added), output, {}, node.where))
    else:
      self._open[output] = number, len(self.nodes) - 1
    return output

  def _check_quantized(self, x: Operand, weight: Constant) -> None:
    """Refuses the product of a weight with what is not quantized."""
    if self.integer and weight.weight and x not in self._call:
      raise UserError(
        f'what {weight.weight} is multiplied with is not quantized, and an '
        f'integer graph has nothing else: {REMEDY}'
      )

  def _made_of(
    self, offset: float, layer: Layer, x: Operand, node: Node
  ) -> Operand:
    """What a layer makes of an input x that is the same number everywhere."""
    if layer.window is None:
      sums = offset * layer.kernel.sum(0)
      return Constant(sums.reshape((1,) * (len(x.shape) - 1) + (-1,)))
    sums = offset * of_ones(layer.kernel, layer.window, x.shape[1:3])
    # All rows but those next to an edge are alike, and so are columns: only
    # different ones are kept.
    rows, row_of = np.unique(sums.astype('f4'), axis=0, return_inverse=True)
    columns, column_of = np.unique(rows, axis=1, return_inverse=True)
    made: Operand = Constant(columns[None])
    for axis, order in ((1, row_of.reshape(-1)), (2, column_of.reshape(-1))):
      shape = list(made.shape)
      shape[axis] = len(order)
      wider = Tensor(tuple(shape), made.dtype)
      taken = {'axis': axis, 'indices': order}
      made = self._append(Node('take', (made,), wider, taken, node.where))
    return made

  def _convolution(self, node: Node) -> None:
    x, weight = node.inputs
    p = node.params
    numbers = p['dimension_numbers']
    spread = tuple(p['lhs_dilation'])
    transposed = set(spread) != {1}
    usual = (
      len(x.shape) == 4
      and numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
      and numbers.rhs_spec == (3, 2, 0, 1)
      and p['batch_group_count'] == 1
      and min(min(pair) for pair in p['padding']) >= 0
      and not (transposed and set(p['window_strides']) != {1})
      and not (transposed and p['feature_group_count'] > 1)
    )
    if not usual or not isinstance(weight, Constant):
      raise UserError(
        f'{node.where} is a convolution of a kind that a graph cannot hold: '
        'export it as packed or stablehlo'
      )
    output = node.output
    self._layer(
      node,
      x,
      weight,
      output,
      window=Window(
        tuple(p['window_strides']),
        (tuple(p['padding'][0]), tuple(p['padding'][1])),
        tuple(p['rhs_dilation']),
        (spread[0], spread[1]),
        p['feature_group_count'],
        (output.shape[1], output.shape[2]),
      ),
    )

  def _dense(self, node: Node) -> None:
    (contract, batched) = node.params['dimension_numbers']
    swapped = isinstance(node.inputs[0], Constant)
    x, weight = node.inputs[::-1] if swapped else node.inputs
    ours, theirs = contract[::-1] if swapped else contract
    if batched[0] or not isinstance(weight, Constant):
      if isinstance(weight, Constant):
        self._check_quantized(x, weight)
      self._append(node)
      return
    ours, theirs = tuple(ours), tuple(theirs)
    rows = tuple(a for a in range(len(x.shape)) if a not in ours)
    free = tuple(a for a in range(len(weight.shape)) if a not in theirs)
    row_shape = tuple(x.shape[a] for a in rows)
    free_shape = tuple(weight.shape[a] for a in free)
    depth = int(np.prod([x.shape[a] for a in ours]))
    matrix = weight.moved(
      lambda w: w.transpose(*theirs, *free).reshape(depth, -1)
    )
    if (order := rows + ours) != tuple(range(len(x.shape))):
      x = self._move(node, 'transpose', x, tuple(x.shape[a] for a in order),
                     {'permutation': order})  # fmt: skip
    if len(ours) != 1:
      x = self._move(node, 'reshape', x, (*row_shape, depth), {})
    columns = matrix.shape[1]
    shape, output = (*row_shape, columns), node.output
    plain = len(free) == 1 and not (swapped and rows)
    y = output if plain else Tensor(shape, output.dtype)
    self._layer(node, x, matrix, y, columns=(columns,))
    if plain:
      return
    full = (*row_shape, *free_shape)
    if not (swapped and rows):
      after = Node('reshape', (y,), output, {}, node.where)
      if not self._taken_in(after):
        self._append(after)
      return
    y = self._move(node, 'reshape', y, full, {})
    count = len(row_shape)
    order = (*range(count, len(full)), *range(count))
    self._append(
      Node('transpose', (y,), output, {'permutation': order}, node.where)
    )

  def _move(
    self, node: Node, op: str, x: Operand, shape: Any, params: Mapping[str, Any]
  ) -> Tensor:
    y = Tensor(tuple(shape), x.dtype)
    return self._append(Node(op, (x,), y, params, node.where))

  def _taken_in(self, node: Node) -> bool:
    """Takes a node into the layer whose output it is applied to, if it can."""
    for x in node.inputs:
      # A tensor that only this plan knows is used once.
      if x in self._open and self._uses.get(x, 1) == 1:
        number, place = self._open[x]
        layer = with_operation(self.layers[number], node, x)
        if layer is None:
          return False
        self.layers[number] = layer
        self.nodes[place] = self.nodes[place]._replace(output=node.output)
        self._open[node.output] = number, place
        return True
    return False
