"""Writes a plan as an ONNX graph.

Every operation of the plan becomes one or a few of ONNX's. Layers are written
by `onnx_layers` in one of two forms. Everything else is the same in both, and
in float: norms, activations, sums, and products of two computed tensors, such
as those of attention. A tensor keeps the order of axes of the last layer, and
is transposed where another order is needed.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from qgan_jax.artifacts.gathered import channels_last
from qgan_jax.artifacts.onnx_layers import (
  channels_first,
  group_norm,
  Products,
)
from qgan_jax.artifacts.onnx_operations import Operations
from qgan_jax.artifacts.onnx_values import FIRST, Value
from qgan_jax.artifacts.plan import Plan
from qgan_jax.artifacts.trace import Constant, Node

Array = np.ndarray
FORMS = ('transposed', 'gathered')
# Added to a layer without a bias. OpenVINO moves the scales of its channels
# behind whatever follows, and gives them to other channels behind a reshape; a
# sum, unless it is of zeros, stays where it is and keeps the scales before it.
_TINY = np.finfo(np.float32).tiny


def onnx_model(plan: Plan, form: str, metadata: Mapping[str, Any]) -> bytes:
  """The ONNX file of a network.

  Its inputs are `latents`, float32 [batch, latent_dim], or `input_images`,
  float32 [batch, H, W, C] in [−1, 1], and, if the network is conditional,
  `labels`, int64 [batch]. Its output is `images`, float32 [batch, H, W, C] in
  [−1, 1].

  Args:
    plan: in integers or in floats.
    form: 'transposed' or 'gathered'.
    metadata: for the file's record; the form and the shapes are added.

  Returns:
    The file's content.

  Raises:
    UserError: the network has an operation that cannot be written.
  """
  if form not in FORMS:
    raise ValueError(f'form={form!r}: one of {", ".join(FORMS)}')
  builder = Products(least_bits=2 if form == 'gathered' else 4)
  graph = _Graph(builder, plan, first=form == 'transposed')
  for node in plan.nodes:
    graph.write(node)
  output = graph.straight(plan.output)
  form_of = {'form': form, 'needs_vnni': plan.needs_vnni}
  return builder.model(
    output, plan.output.shape[1:], plan.record({**metadata, **form_of})
  )


class _Graph(Operations):
  """Writes layers, too."""

  b: Products

  def __init__(self, b: Products, plan: Plan, *, first: bool) -> None:
    super().__init__(b, plan.named_inputs(), first=first)
    self.plan = plan

  def _op_quantize(self, node: Node) -> Value:
    x = self.read(node.inputs[0])
    x = x._replace(steps=self.plan.steps[node.params['call']])
    # OpenVINO looks for the quantizer right before a product; elsewhere bytes
    # are moved faster than numbers.
    return x if self.first else self.coded(x)

  def _op_layer(self, node: Node) -> Value:
    layer = self.plan.layers[node.params['layer']]
    if self.first and not layer.bias.any():
      layer = dataclasses.replace(layer, bias=np.full_like(layer.bias, _TINY))
    x = self.moving(node.inputs[0])
    shape, rank = node.output.shape, len(node.output.shape)
    straight = tuple(range(rank))
    bias = layer.bias if layer.bias.any() else None
    if layer.window is not None:
      size = x.shape[1:3]
      write = channels_first if self.first else channels_last
      axes = FIRST if self.first else straight
      x = self.coded(self.turned(x, axes))
      y = write(self.b, x.name, layer, layer.window, size)
      return Value(y, shape, axes, bias=None if self.first else bias)
    x = self.turned(x, tuple(range(len(x.shape))))
    axes, whole = straight, len(layer.columns) > 1
    if self.first and len(layer.columns) == 3:
      axes = FIRST  # Its columns are put into the order that is read next.

    def order(values: Array) -> Array:
      if axes is straight:
        return values
      shaped = values.reshape(-1, *layer.columns).transpose(FIRST)
      return shaped.reshape(values.shape)

    name, depth = x.name, x.shape[-1]
    if self.first and rank > 2 and layer.steps is not None:
      name = self.b.reshape(name, depth)  # OpenVINO's integers are of matrices.
    elif bias is not None and rank == 2 and not self.first:
      # ONNX Runtime makes a `Gemm` of a product of matrices and a bias, which
      # it runs in float.
      name = self.b.reshape(name, 1, depth)
    codes = self.coded(x._replace(name=name)).name
    y = self.b.product(codes, layer, order)
    columns = [layer.columns[a - 1] for a in axes[1:]] if whole else [-1]
    if whole:
      y = self.b.reshape(y, *columns)
    if bias is not None:
      y = self.b.op('Add', y, self.b.constant(order(bias).reshape(columns)))
    if not whole and name != x.name:
      y = self.b.op('Reshape', y, self.places(shape))
    return Value(y, shape, axes)

  def _op_group_norm(self, node: Node) -> Value:
    x, scale, bias = node.inputs
    size, epsilon = node.params['group_size'], node.params['epsilon']
    if not (isinstance(scale, Constant) and isinstance(bias, Constant)):
      raise self.unknown(node)
    if not self.first:
      value = self.values[x]
      y = group_norm(
        self.b, value.name, value.bias, scale.value, bias.value, size, epsilon
      )
      return Value(y, value.shape, value.axes)
    value = self.turned(self.read(x), FIRST)
    y = self.b.op(
      'GroupNormalization',
      value.name,
      self.b.constant(scale.value),
      self.b.constant(bias.value),
      num_groups=value.shape[-1] // size,
      epsilon=epsilon,
    )
    return value._replace(name=y)
