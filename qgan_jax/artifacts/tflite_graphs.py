"""Writes a plan as a LiteRT graph, for one example at a time.

Layers are integer products, written by `tflite_layers`; everything else is
computed in float. If there is at most a ReLU between a layer and the quantizer
of the next one, bytes are passed from one to the other.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from qgan_jax.artifacts.levels import Steps
from qgan_jax.artifacts.plan import Plan
from qgan_jax.artifacts.tflite_builder import Value
from qgan_jax.artifacts.tflite_layers import (
  gives_bytes,
  in_bytes,
  in_float,
  in_sums,
  quantized,
)
from qgan_jax.artifacts.tflite_operations import Operations
from qgan_jax.artifacts.tflite_products import Products
from qgan_jax.artifacts.trace import Node, Operand


def tflite_model(plan: Plan, metadata: Mapping[str, Any]) -> bytes:
  """The LiteRT file of a network.

  Its inputs are `latents`, float32 [1, latent_dim], or `input_images`, float32
  [1, H, W, C] in [−1, 1], and, if the network is conditional, `labels`, int32
  [1]. Its output is `images`, float32 [1, H, W, C] in [−1, 1].

  Args:
    plan: in integers or in floats; its layers are not split.
    metadata: for the file's record; the shapes are added.

  Returns:
    The file's content.

  Raises:
    UserError: the network has an operation that cannot be written.
  """
  builder = Products()
  graph = _Graph(builder, plan)
  for node in plan.nodes:
    graph.write(node)
  output = graph.read(plan.output)
  return builder.model(output, plan.record(metadata))


class _Graph(Operations):
  """Writes layers, too."""

  b: Products

  def __init__(self, b: Products, plan: Plan) -> None:
    super().__init__(b)
    self.plan = plan
    for name, tensor in plan.named_inputs().items():
      shape = (1, *tensor.shape[1:])
      self.values[tensor] = b.input(name, shape, tensor.dtype)
    uses = Counter(x for node in plan.nodes for x in node.inputs)
    uses[plan.output] += 1
    # The node that alone reads a tensor.
    self._reader: dict[Operand, Node] = {
      x: node for node in plan.nodes for x in node.inputs if uses[x] == 1
    }

  def write(self, node: Node) -> None:
    """Writes a node, unless a layer has taken it in."""
    if node.output not in self.values:
      super().write(node)

  def _op_quantize(self, node: Node) -> Value:
    steps = self.plan.steps[node.params['call']]
    x = self.read(node.inputs[0])
    return x if steps is None else quantized(self.b, x, steps)

  def _op_layer(self, node: Node) -> Value:
    layer = self.plan.layers[node.params['layer']]
    if layer.codes is None:
      return in_float(self.b, self.read(node.inputs[0]), layer)
    x = self.moving(node.inputs[0])
    rounded = self._rounded(node.output)
    if rounded is not None and gives_bytes(layer, rounded[0]):
      steps, output = rounded
      y = in_bytes(self.b, x, layer, steps)
      self.values |= dict.fromkeys(self._between(node.output, output), y)
      return y
    return in_sums(self.b, x, layer)

  def _rounded(self, x: Operand) -> tuple[Steps, Operand] | None:
    """The quantizer that alone reads x, at most through a ReLU; its output."""
    reader = self._reader.get(x)
    if reader is not None and reader.op == 'relu':
      reader = self._reader.get(reader.output)
    if reader is None or reader.op != 'quantize':
      return None
    steps = self.plan.steps[reader.params['call']]
    return None if steps is None else (steps, reader.output)

  def _between(self, x: Operand, last: Operand) -> list[Operand]:
    """All that a layer's output x goes through, up to the last."""
    found = [x]
    while found[-1] is not last:
      found.append(self._reader[found[-1]].output)
    return found
