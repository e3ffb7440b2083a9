"""Quantizes networks of any Linen modules after training, in one call."""

import inspect
from typing import Any, overload, TypedDict, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp

from qgan_jax.errors import UserError
from qgan_jax.post_training.arguments import (
  arrays_of,
  check,
  Inputs,
  inputs_of,
  naming_the_call,
  network_of,
  Pair,
)
from qgan_jax.post_training.fitting import fit
from qgan_jax.post_training.watch import batch_size_for, batches
from qgan_jax.post_training.weights import fit_weights
from qgan_jax.precision import (
  Bits,
  FLOAT_BITS,
  inputs_like,
  Precision,
  Quantized,
  QuantizerSpec,
)
from qgan_jax.precision.layers import find_layers, held_layers, Layer
from qgan_jax.precision.rules import Defaults, parse_rules, resolve_rules


class _Options(TypedDict, total=False):
  bit_width: int
  quantizer: str | None
  activation_quantizer: str
  per_channel: bool
  rules: str | None
  generator_inputs: Any
  discriminator_inputs: Any


class _Calibrated(_Options):
  calibrate: Any


@overload
def quantize(
  generator: Pair, *, calibrate: Any = None, **options: Unpack[_Options]
) -> Quantized: ...


@overload
def quantize(
  generator: Pair,
  discriminator: Pair,
  *,
  calibrate: Any = None,
  **options: Unpack[_Options],
) -> tuple[Quantized, Quantized]: ...


@overload
def quantize(
  generator: nn.Module,
  discriminator: nn.Module,
  bit_width: int = 8,
  *,
  quantizer: str | None = None,
  per_channel: bool = True,
  rules: str | None = None,
  generator_inputs: Any = None,
  discriminator_inputs: Any = None,
) -> tuple[nn.Module, nn.Module]: ...


@overload
def quantize(
  generator: nn.Module,
  discriminator: nn.Module,
  **options: Unpack[_Calibrated],
) -> tuple[Quantized, Quantized]: ...


def quantize(
  generator: Any,
  discriminator: Any = None,
  bit_width: int = 8,
  *,
  quantizer: str | None = None,
  activation_quantizer: str = 'affine',
  per_channel: bool = True,
  rules: str | None = None,
  calibrate: Any = None,
  generator_inputs: Any = None,
  discriminator_inputs: Any = None,
) -> Any:
  """Quantizes one or two trained networks, without training them again.

  Works for any Linen module. The weights of Linen's layers (`Dense`, `Conv`, …)
  are quantized; with `calibrate`, the inputs of these layers are, too. A
  parameter that a module multiplies by itself, for example in an `einsum`,
  stays in float: `Quantized.table` lists it, and a rule can quantize it.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> import qgan_jax as q
    >>> class G(nn.Module):
    ...   @nn.compact
    ...   def __call__(self, z):
    ...     x = nn.relu(nn.Dense(16)(z))
    ...     return nn.tanh(nn.Dense(4)(x))
    >>> latents = jax.random.normal(jax.random.key(0), (256, 8))
    >>> variables = G().init(jax.random.key(1), latents)
    >>> g = q.quantize((G(), variables), bit_width=4, calibrate=latents)
    >>> g(latents).shape
    (256, 4)

  Args:
    generator: the network: (module, variables), or a module bound to its
      variables, `module.bind(variables)`.
    discriminator: a second network, in the same form; None for one network.
    bit_width: of the weights, and of the activations if they are calibrated: 1
      to 16, or 32 for float. Biases and norms stay in float, and the network's
      own input keeps at least 8 bits. A quantizer with a fixed width, such as
      `ternary`, uses that width.
    quantizer: of the weights, one of `quantizers.WEIGHTS` except `grid`.
      Learned scales ('lsq', 'seq') are set to those of least squared error.
      None means 'lsq', or 'uniform' (min-max) if bound modules are returned.
    activation_quantizer: one of `quantizers.ACTIVATIONS`.
    per_channel: whether each output channel of a weight has its own scale.
    rules: exceptions for single layers, in the syntax of the config key
      `precision.rules`: 'generator/weights/Dense_0: bits=8'. The first network
      is always called `generator`, the second `discriminator`.
    calibrate: inputs of the first network, an array [N, …] or a tuple of them,
      of a few hundred examples or more. They are used to choose the ranges of
      the activations (least squared error), to correct the biases for the
      errors of the weights, and to measure BatchNorm's statistics anew.
      The second network is calibrated with the output of the first one in
      float. Further arrays of the tuple, such as labels, are passed to it, too,
      up to the first whose argument has another name there. None quantizes the
      weights alone.
    generator_inputs: example inputs of the first network, instead of
      `calibrate`: arrays or `jax.ShapeDtypeStruct`s; only their shapes and
      types are used. They show which axis of a kernel holds the output
      channels. Without them this is known for layers that exist before a call
      (fields, `setup`). For other layers the shape of the bias is used, and the
      last axis where that does not tell. So give example inputs if a compact
      method makes a `ConvTranspose` with `transpose_kernel=True`, or a
      `DenseGeneral` with several features.
    discriminator_inputs: the same for the second network. With `calibrate`,
      arrays that it is calibrated with instead of the first one's output.

  Returns:
    A `Quantized` for each network. If bound modules are given without
    `calibrate`, bound modules with quantized weights.

  Raises:
    ValueError: an argument does not have the form described above.
  """
  bound = isinstance(generator, nn.Module) and calibrate is None
  if quantizer is None:
    quantizer = 'uniform' if bound else 'lsq'
  check(bit_width, quantizer, activation_quantizer)
  given = {'generator': network_of(generator, 'the first network')}
  if discriminator is not None:
    given['discriminator'] = network_of(discriminator, 'the second network')
  elif discriminator_inputs is not None:
    raise ValueError('discriminator_inputs are given, and no second network')
  if calibrate is None:
    inputs = {
      'generator': inputs_of('generator_inputs', generator_inputs),
      'discriminator': inputs_of('discriminator_inputs', discriminator_inputs),
    }
  elif generator_inputs is not None:
    raise ValueError(
      'calibrate and generator_inputs both say what the first network is '
      'called with: leave out generator_inputs'
    )
  else:
    first = arrays_of('calibrate', calibrate)
    inputs = {'generator': first}
    if discriminator_inputs is not None:
      second = arrays_of('discriminator_inputs', discriminator_inputs)
      inputs['discriminator'] = second
    elif discriminator is not None:
      inputs['discriminator'] = _made(
        given['generator'], given['discriminator'][0], first
      )

  precision = Precision(
    weights=QuantizerSpec(quantizer, axis=-1 if per_channel else None),
    activations=QuantizerSpec(activation_quantizer),
  )
  width: Any = int(bit_width)  # Plain numbers, for the rules.
  in_float: Any = FLOAT_BITS
  defaults = Defaults(
    precision, Bits(width, in_float if calibrate is None else width)
  )
  layers = {
    name: _layers(network, inputs[name], calibrated=calibrate is not None)
    for name, network in given.items()
  }
  try:
    precisions, bits, _ = resolve_rules(
      layers, dict.fromkeys(given, defaults), parse_rules(rules, given)
    )
  except UserError as error:
    raise ValueError(str(error)) from None
  results: list[Any] = []
  for name, (module, variables) in given.items():
    called = inputs[name]
    network = Quantized(
      module,
      precisions[name],
      jax.tree.map(jnp.float32, bits[name]),
      dict(variables),
      inputs=None if called is None else inputs_like(*called),
    )
    if calibrate is None or called is None:
      results.append(fit_weights(network))
    else:
      results.append(_calibrated(network, called))
  if bound:
    results = [network.bind() for network in results]
  return tuple(results) if discriminator is not None else results[0]


def _layers(
  network: Pair, inputs: Inputs | None, *, calibrated: bool
) -> tuple[Layer, ...]:
  module, variables = network
  if inputs is None:
    return held_layers(module.bind(variables))
  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
  with naming_the_call(module, inputs):
    layers = find_layers(module, *shapes, variables=variables)
  if calibrated:
    return layers
  return tuple(layer._replace(inputs=None) for layer in layers if layer.kernel)


def _made(network: Pair, second: nn.Module, inputs: Inputs) -> Inputs:
  """What the second network is called with where nobody said."""
  module, variables = network
  bits = Bits(jnp.float32(FLOAT_BITS), jnp.float32(FLOAT_BITS))
  in_float = Quantized(module, Precision(), bits, dict(variables))
  with naming_the_call(module, inputs):
    made = [_call(in_float, part) for part in _parts(inputs)]
  if not isinstance(made[0], jax.Array) or not made[0].ndim:
    raise ValueError(
      f'{type(module).__name__} does not give one array: say what '
      f'{type(second).__name__} is called with, discriminator_inputs='
    )
  second_inputs = [jnp.concatenate(made)]
  own, other = (list(inspect.signature(m).parameters) for m in (module, second))
  for x, mine, its in zip(inputs[1:], own[1:], other[1:], strict=False):
    if mine != its:
      break
    second_inputs.append(x[: len(second_inputs[0])])
  return tuple(second_inputs)


@jax.jit
def _call(network: Quantized, args: Inputs) -> Any:
  return network(*args)


def _parts(inputs: Inputs) -> list[Inputs]:
  return batches(inputs, batch_size_for(inputs))


def _calibrated(network: Quantized, inputs: Inputs) -> Quantized:
  """Fitted to inputs, as the command `quantize` fits those of a run."""
  specs = network.precision.specs('activations')
  if any(spec.quantizer.learned for spec in specs):
    network = network.fitted(*_parts(inputs)[0])
  if min(jax.tree.leaves(network.bits)) >= FLOAT_BITS:
    return network  # Exactly as it was given.
  return fit(network, *inputs)
