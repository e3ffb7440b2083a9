"""Tensors of an ONNX graph in any order of axes, as numbers or codes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.levels import Steps
from qgan_jax.artifacts.onnx_builder import Builder
from qgan_jax.artifacts.trace import Constant, Operand, Tensor

Array = np.ndarray
FIRST = (0, 3, 1, 2)  # Channels before height and width.


class Value(NamedTuple):
  """A tensor of the graph.

  Attributes:
    name: of the ONNX tensor.
    shape: as in the plan.
    axes: for each axis of the ONNX tensor, the axis of `shape` that it is.
    steps: with which the tensor is to be quantized; None for no quantization.
    coded: whether it holds the codes already.
    bias: [last axis], still to be added; None for nothing.
  """

  name: str
  shape: tuple[int, ...]
  axes: tuple[int, ...]
  steps: Steps | None = None
  coded: bool = False
  bias: Array | None = None


class Values:
  """The graph's tensors for those of a plan, and how to read them.

  Attributes:
    b: the graph's builder.
    first: whether layers put channels before height and width.
    inputs: of the graph, by name.
    values: what has been written, by the plan's tensor.
  """

  def __init__(
    self, b: Builder, inputs: Mapping[str, Tensor], *, first: bool
  ) -> None:
    self.b, self.first, self.inputs = b, first, inputs
    self.values: dict[Operand, Value] = {}
    self._made: dict[Any, str] = {}  # What was turned round, or read in full.
    for name, tensor in inputs.items():
      self._declare(name, tensor)

  def _declare(self, name: str, tensor: Tensor) -> None:
    whole = np.issubdtype(tensor.dtype, np.integer)
    x = self.b.input(name, 'INT64' if whole else 'FLOAT', *tensor.shape[1:])
    if whole:
      x = self.b.cast(x, tensor.dtype)
    axes = tuple(range(len(tensor.shape)))
    self.values[tensor] = Value(x, tensor.shape, axes)

  def moving(self, operand: Operand) -> Value:
    """A value for operations that only move it: codes or numbers."""
    if isinstance(operand, Constant):
      array = operand.value
      if jnp.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
      axes = tuple(range(array.ndim))
      return Value(self.b.constant(array), array.shape, axes)
    value = self.values[operand]
    if value.bias is not None:
      key = value.name, 'with its bias'
      if key not in self._made:
        self._made[key] = self.b.op(
          'Add', value.name, self.b.constant(value.bias)
        )
      value = value._replace(name=self._made[key], bias=None)
    return value

  def read(self, operand: Operand) -> Value:
    """A value as numbers."""
    value = self.moving(operand)
    if value.steps is None:
      return value
    codes, steps = self.coded(value).name, value.steps
    key = codes, 'numbers'
    if key not in self._made:
      self._made[key] = self.b.dequantize(codes, steps)
    return Value(self._made[key], value.shape, value.axes)

  def coded(self, value: Value) -> Value:
    """A value as codes, if it is to be quantized."""
    if value.steps is None or value.coded:
      return value
    key = value.name, value.steps
    if key not in self._made:
      self._made[key] = self.b.quantize(value.name, value.steps)
    return value._replace(name=self._made[key], coded=True)

  def turned(self, value: Value, axes: tuple[int, ...]) -> Value:
    """The same value with its axes in another order."""
    if value.axes == axes:
      return value
    order = tuple(value.axes.index(a) for a in axes)
    key = value.name, order
    if key not in self._made:
      self._made[key] = self.b.op('Transpose', value.name, perm=order)
    return value._replace(name=self._made[key], axes=axes)

  def straight(self, operand: Operand) -> str:
    """Name of a tensor of numbers with its axes in the order of the plan."""
    value = self.read(operand)
    return self.turned(value, tuple(range(len(value.shape)))).name
