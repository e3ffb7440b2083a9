"""The operations that a StableHLO program may contain.

A StableHLO program can call any handler that JAX has registered, and one of
these runs Python functions by their address. So before a program is compiled,
each of its operations is checked. Only operations that turn arrays into arrays
are allowed.
"""

from typing import Any

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo

# StableHLO's own, https://openxla.org/stablehlo/spec: those without effects
# that layers become. Not among them: what sends and receives, what draws random
# numbers, and what hands work to something outside.
_PURE = frozenset((
  'abs', 'add', 'and', 'atan2', 'bitcast_convert', 'broadcast_in_dim', 'cbrt',
  'ceil', 'clamp', 'compare', 'complex', 'concatenate', 'constant', 'convert',
  'convolution', 'cosine', 'count_leading_zeros', 'divide', 'dot_general',
  'dynamic_broadcast_in_dim', 'dynamic_conv', 'dynamic_gather',
  'dynamic_iota', 'dynamic_pad', 'dynamic_reshape', 'dynamic_slice',
  'dynamic_update_slice', 'exponential', 'exponential_minus_one', 'fft',
  'floor', 'gather', 'get_dimension_size', 'get_tuple_element', 'imag',
  'iota', 'is_finite', 'log', 'log_plus_one', 'logistic', 'map', 'maximum',
  'minimum', 'multiply', 'negate', 'not', 'optimization_barrier', 'or', 'pad',
  'popcnt', 'power', 'real', 'real_dynamic_slice', 'reduce',
  'reduce_precision', 'reduce_window', 'remainder', 'reshape', 'return',
  'reverse', 'round_nearest_afz', 'round_nearest_even', 'rsqrt', 'scatter',
  'select', 'select_and_scatter', 'shift_left', 'shift_right_arithmetic',
  'shift_right_logical', 'sign', 'sine', 'slice', 'sort', 'sqrt', 'subtract',
  'tan', 'tanh', 'transpose', 'tuple', 'xor',
))  # fmt: skip
# Loops of `lax.scan` among them, which end or run out of time.
_CONTROL = frozenset(('case', 'if', 'while'))
OPERATIONS = frozenset(
  {'builtin.module', 'func.func', 'func.call', 'func.return'}
  | {f'stablehlo.{name}' for name in _PURE | _CONTROL}
)
# What JAX writes to compare sizes of inputs, and computes while it compiles.
CALLS = frozenset(('shape_assertion',))
_CALL = 'stablehlo.custom_call'
# Of a program, each function counted wherever it is called: the compiler puts
# its operations there.
MAX_OPERATIONS = 100_000


def check_operations(module: Any) -> None:
  """Raises a ValueError for operations that the exporter does not write.

  Args:
    module: an `ir.Module`, parsed.

  Raises:
    ValueError: it has another operation, calls something outside, calls itself
      or is too large.
  """
  functions = {}
  for function in module.body:
    name = function.operation.name
    if name != 'func.func':
      raise ValueError(f'{name} is no function')
    functions[ir.StringAttr(function.attributes['sym_name']).value] = function
  sizes: dict[str, int | None] = {}

  def size(name: str) -> int:
    """How many operations a function has, with those that it calls."""
    if name in sizes:
      found = sizes[name]
      if found is None:
        raise ValueError(f'the function {name!r} calls itself')
      return found
    sizes[name] = None
    total, waiting = 0, [functions[name].operation]
    while waiting:
      operation = waiting.pop()
      total += 1
      _check(operation)
      if operation.name == 'func.call':
        callee = ir.FlatSymbolRefAttr(operation.attributes['callee']).value
        total += size(callee)
      for region in operation.regions:
        for block in region:
          waiting += [inner.operation for inner in block]
      if total > MAX_OPERATIONS:
        raise ValueError(f'it has more than {MAX_OPERATIONS} operations')
    sizes[name] = total
    return total

  for name in functions:
    size(name)


def _check(operation: Any) -> None:
  name = operation.name
  if name == _CALL:
    target = ir.StringAttr(operation.attributes['call_target_name']).value
    if target not in CALLS or operation.results:
      raise ValueError(f'it calls {target!r}, which no exported program does')
  elif name not in OPERATIONS:
    raise ValueError(f'{name} is no operation of an exported program')


def parsed(program: bytes) -> Any:
  """Parses a program that `jax.export` serialized into its module.

  Only operations of StableHLO and functions can be parsed.

  Raises:
    ValueError: it is not such a program.
  """
  context = ir.Context()
  stablehlo.register_dialect(context)
  try:
    return stablehlo.deserialize_portable_artifact(context, program)
  except Exception as error:
    reason = str(error).strip().splitlines()
    raise ValueError(
      f'its program cannot be read ({reason[-1:] or "empty"})'
    ) from None
