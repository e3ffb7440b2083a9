"""A generator as plain arrays, layer by layer: what a graph is made from.

It is the one place where the exports look into a network's precision and into
the model; the graphs know neither.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from qgan_jax.artifacts.levels import (
  Codes,
  integer_codes,
  pairs_fit,
  Steps,
  steps_of,
)
from qgan_jax.errors import UserError
from qgan_jax.models.dcgan import Generator, stage_sizes
from qgan_jax.precision import Quantized, width

Array = np.ndarray
MIN_CODE, MAX_CODE = -128, 127  # Of a signed byte.


@dataclasses.dataclass(frozen=True)
class Norm:
  """GroupNorm over groups of `group_size` channels.

  Attributes:
    gain: [C].
    bias: [C].
    group_size: channels in a group.
    epsilon: added to the variance.
  """

  gain: Array
  bias: Array
  group_size: int = 8
  epsilon: float = 1e-6


@dataclasses.dataclass(frozen=True)
class Layer:
  """A layer that multiplies, and what its output goes through.

  Attributes:
    name: of the module.
    kernel: [4, 4, I, O] as Flax keeps it: not turned round; quantized values.
    codes: the same as signed bytes and scales; None for a kernel in float.
    steps: of the quantized input; None for one in float.
    bias: [O]; what a BatchNorm adds is in it.
    size: side of the output in pixels; what is beyond is cut off.
    norm: that follows; None for none, and for a folded one.
    split: whether a graph multiplies each code as the sum of two smaller ones,
      whose products fit in 16 bits.
  """

  name: str
  kernel: Array
  codes: Codes | None
  steps: Steps | None
  bias: Array
  size: int
  norm: Norm | None = None
  split: bool = False

  @property
  def needs_vnni(self) -> bool:
    """Whether the products are wrong where pairs are added in 16 bits."""
    if self.codes is None or self.steps is None or self.split:
      return False
    return not pairs_fit(self.steps, self.codes)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A whole DCGAN generator.

  Attributes:
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional one; else its one-hot labels follow
      the latent.
    layers: 'project' from one pixel to 4×4, then those that double the side;
      ReLU between them, tanh behind.
  """

  latent_dim: int
  num_classes: int
  layers: tuple[Layer, ...]

  @property
  def shape(self) -> tuple[int, int, int]:
    """(height, width, channels) of an image."""
    last = self.layers[-1]
    return last.size, last.size, last.kernel.shape[-1]

  @property
  def needs_vnni(self) -> bool:
    """Whether a graph of it is wrong on x86 processors without VNNI."""
    return any(layer.needs_vnni for layer in self.layers)


def make_plan(network: Quantized, *, integer: bool, split: bool = True) -> Plan:
  """Takes a generator apart.

  Args:
    network: its module is a `dcgan.Generator`.
    integer: whether every layer has to be one of integers.
    split: whether layers that need VNNI are multiplied in two parts, and so
      are exact on every processor; this takes up to twice as long.

  Returns:
    The plan. In float its kernels are the quantized values, but activations
    are left as they are.

  Raises:
    UserError: for another family, and where `integer` asks for what the
      weights or the activations of a layer are not; it is named.
  """
  module = network.module
  if not isinstance(module, Generator):
    raise UserError(
      f'a network of the class {type(module).__name__} cannot be exported to '
      'ONNX, only the generator of dcgan: export it as packed or stablehlo'
    )
  sizes = stage_sizes(module.image_size)[::-1]
  names = ('project', *(f'up{i}' for i in range(len(sizes) - 1)))
  variables = jax.tree.map(np.asarray, network.variables)
  steps = _activation_steps(network, names) if integer else {}
  layers = []
  for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
    params = variables['params'][name]
    kernel = params['kernel']
    bias = params.get('bias', np.zeros(kernel.shape[-1], np.float32))
    norm = None
    if i < len(names) - 1 and module.norm == 'group':
      values = variables['params'][f'GroupNorm_{i}']
      norm = Norm(values['scale'], values['bias'])
    codes = None
    if integer:
      codes = integer_codes(kernel, -MIN_CODE)
      if codes is None or codes.codes.max() > MAX_CODE:
        raise UserError(
          f'{_describe(network, "weights", name)} are not '
          f'integers from {MIN_CODE} to {MAX_CODE} times one step for each '
          'channel, and an integer graph has nothing else: export '
          '--format=packed, stablehlo or onnx-float'
        )
    step = steps.get(name)
    if step is not None and i > 0:
      # Behind a ReLU no code below 0 occurs; runtimes are fastest without.
      step = Steps(step.scale, 0, step.levels - step.zero_point)
    layer = Layer(name, kernel, codes, step, bias, size, norm)
    if i < len(names) - 1 and module.norm == 'batch':
      layer = _fold(
        layer,
        variables['params'][f'BatchNorm_{i}'],
        variables['batch_stats'][f'BatchNorm_{i}'],
      )
    layers.append(dataclasses.replace(layer, split=split and layer.needs_vnni))
  return Plan(module.latent_dim, module.num_classes, tuple(layers))


def _fold(layer: Layer, params: Any, stats: Any) -> Layer:
  """A layer with the BatchNorm behind it taken in; its codes stay."""
  factor = params['scale'] / np.sqrt(stats['var'] + np.float32(1e-5))
  codes = layer.codes
  if codes is not None:
    # The sign goes into the scale: −128 has no opposite among the codes. A
    # channel that is turned off needs a scale, too.
    scales = np.where(factor == 0, 1, codes.scales * factor)
    codes = Codes(codes.codes * (factor != 0), scales.astype(np.float32))
  return dataclasses.replace(
    layer,
    kernel=layer.kernel * factor,
    codes=codes,
    bias=(layer.bias - stats['mean']) * factor + params['bias'],
  )


class _Identity(nn.Dense):
  """A layer to the precision's eyes; it returns its input."""

  features: int = 0

  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Returns what it was given: quantized, where inputs are caught."""
    return inputs


class _Probe(nn.Module):
  """What each of a network's layers would be given for the same input."""

  names: tuple[str, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """Maps x to one array of its shape for each layer."""
    return [_Identity(name=name)(x) for name in self.names]


def _activation_steps(
  network: Quantized, names: tuple[str, ...]
) -> dict[str, Steps]:
  """How the inputs of the layers are quantized."""
  probe = jax.jit(lambda x: _quantized_inputs(network, _Probe(names), x))
  ranges = [float(np.abs(x).max()) for x in network.ranges.values()]
  amplitude = max([1e3, *(8 * r for r in ranges)])
  found = {}
  for i, name in enumerate(names):

    def quantize(x: Array, i: int = i) -> Array:
      return np.asarray(probe(x)[i])

    try:
      found[name] = steps_of(quantize, amplitude)
    except ValueError as error:
      raise UserError(
        f'{_describe(network, "activations", name)} '
        f'{error}, and an integer graph needs at most 256 equal steps that '
        'are fixed: export --format=packed, stablehlo or onnx-float'
      ) from None
  return found


def _quantized_inputs(
  network: Quantized, module: nn.Module, x: jax.Array
) -> Any:
  return network.precision.apply(
    module, {}, network.ranges, network.bits, x, learned=network.learned
  )[0]


def _describe(network: Quantized, role: str, layer: str) -> str:
  spec = network.precision.spec(role, layer)
  bits = width(getattr(network.bits, role), layer)
  how = f'{spec.name}, {bits:g} bits' if spec else 'float'
  return f'the {role} of {layer} ({how})'
