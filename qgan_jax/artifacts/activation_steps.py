"""The quantizers of a network's layer inputs, as equal steps."""

import functools
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.artifacts.levels import Steps, steps_of
from qgan_jax.errors import UserError
from qgan_jax.precision import FLOAT_BITS, Quantized, width
from qgan_jax.precision.noise import apply_with

Array = np.ndarray
# Beyond the range of any layer's input.
_BEYOND = 1e30
# What a message advises where integers cannot say what a network does.
REMEDY = 'export --format=packed, stablehlo or onnx-float'


def activation_steps(
  network: Quantized, calls: tuple[str, ...]
) -> list[Steps | None]:
  """Equal steps of the quantizer of each layer's input, call by call."""
  paths: list[str] = []

  @jax.jit
  def observed(network: Quantized, *inputs: Any) -> list[Any]:
    found = []

    def observe(path: str, x: Any, params: Any, bits: Any) -> None:
      paths.append(path)
      found.append((params, bits))

    network.run(
      network.weights(network.variables['params']), *inputs, observe=observe
    )
    return found

  rng = np.random.default_rng(0)
  drawn = [
    rng.standard_normal((2, *x.shape)).astype(x.dtype)
    if jnp.issubdtype(x.dtype, np.floating)
    else np.zeros((2, *x.shape), x.dtype)
    for x in network.inputs or ()
  ]
  quantizers = observed(network, *drawn)
  others = observed(network, *(3 * x for x in drawn))
  steps: list[Steps | None] = []
  order = iter(zip(paths, quantizers, others, strict=True))
  following = next(order, None)
  for path in calls:
    try:
      if following is None or following[0] != path:
        raise ValueError('are in float')
      _, (params, bits), other = following
      following = next(order, None)
      same = jax.tree.map(np.array_equal, (params, bits), other)
      if not jax.tree.all(same):
        raise ValueError('take their range from each batch')
      steps.append(_steps(network, path, params, bits))
    except ValueError as error:
      raise UserError(
        f'{described(network, "activations", path)} {error}, and an integer '
        f'graph needs at most 256 equal steps that are fixed: {REMEDY}'
      ) from None
  return steps


def _steps(network: Quantized, path: str, params: Any, bits: Any) -> Steps:
  spec = network.precision.spec('activations', path)
  if spec is None or bits >= FLOAT_BITS:
    raise ValueError('are in float')
  quantizer = spec.quantizer

  def quantize(x: Array) -> Array:
    return np.asarray(_rounded(quantizer, x, params, bits))

  return steps_of(quantize, _BEYOND)


@functools.partial(jax.jit, static_argnums=0)
def _rounded(quantizer: Any, x: Any, params: Any, bits: Any) -> Any:
  return apply_with(quantizer, x, params, bits, None)


def described(network: Quantized, role: str, layer: str) -> str:
  """A layer's weights or activations and their quantizer, in words."""
  precision = network.precision
  spec = precision.spec(role, layer)
  params = traverse_util.flatten_dict(network.variables['params'], sep='/')
  if layer in params:  # Of no layer: in float, unless a rule names it.
    path = precision.weight_path(tuple(layer.split('/')), params[layer])
    spec = spec if path else None
  how = 'float'
  if spec is not None:
    bits = width(getattr(network.bits, role), layer)
    how = f'{spec.name}, {bits:g} bits'
  return f'the {role} of {layer} ({how})'
