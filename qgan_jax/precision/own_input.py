"""Which layers multiply, and which of these read the network's own input."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

PyTree = Any
LAYERS = (nn.Dense, nn.DenseGeneral, nn.Conv, nn.ConvLocal, nn.ConvTranspose)
# Where a value comes from: a network's arguments, what a layer has computed.
_ARGUMENT, _LAYER = 1, 2
_GIVEN, _COMPUTED = 'given to the layer ', 'computed by a layer'


def is_layer(context: nn.module.InterceptorContext) -> bool:
  """Whether an intercepted call is one of a layer that multiplies.

  Such a layer is one of Linen's (`Dense`, `DenseGeneral`, `Conv`, `ConvLocal`,
  `ConvTranspose`), or a module with an attribute `multiplied` that is true. The
  latter stands for one factor of a product, and returns its input.
  """
  module = context.module
  return context.method_name == '__call__' and (
    isinstance(module, LAYERS) or getattr(module, 'multiplied', False)
  )


def trace_inputs(
  run: Callable[..., PyTree], variables: PyTree, *example: PyTree
) -> tuple[PyTree, frozenset[str]]:
  """Finds the layers that read the network's own input directly.

  An image that is pooled, flattened, or joined with its label still counts as
  the input; the sum of an image and a layer's output does not.

  Args:
    run: (variables, *example) → pytree of arrays; it calls a module.
    variables: arrays, `jax.ShapeDtypeStruct`s, or None.
    *example: the network's input, likewise.

  Returns:
    (shapes of what `run` returns, paths of these layers). A layer that is
    called several times is included if it reads the input in every call.
  """

  def mark(next_fun, args, kwargs, context):
    if not is_layer(context):
      return next_fun(*args, **kwargs)
    x, *rest = args or (kwargs.pop('inputs'),)
    x = checkpoint_name(x, _GIVEN + '/'.join(context.module.path))
    return checkpoint_name(next_fun(x, *rest, **kwargs), _COMPUTED)

  def marked(variables: PyTree, *example: PyTree) -> PyTree:
    with nn.intercept_methods(mark):
      return run(variables, *example)

  closed, shapes = jax.make_jaxpr(marked, return_shape=True)(
    variables, *example
  )
  sources = [0] * len(jax.tree.leaves(variables))
  sources += [_ARGUMENT] * len(jax.tree.leaves(example))
  found: dict[str, bool] = {}
  _follow(closed.jaxpr, sources, found)
  return shapes, frozenset(path for path, reads in found.items() if reads)


def _follow(jaxpr: Any, given: list[int], found: dict[str, bool]) -> list[int]:
  """Sources of a program's results, from those of its arguments.

  Args:
    jaxpr: the program.
    given: of each argument, a sum of `_ARGUMENT` and `_LAYER`.
    found: by layer, whether each call so far has read the input; added to.
  """
  sources = dict(zip(jaxpr.invars, given, strict=True))

  def of(variable: Any) -> int:
    literal = hasattr(variable, 'val')
    return 0 if literal else sources.get(variable, 0)

  for equation in jaxpr.eqns:
    operands = [of(variable) for variable in equation.invars]
    results = [_any(operands)] * len(equation.outvars)
    if equation.primitive.name == 'name':
      name = equation.params['name']
      if name == _COMPUTED:
        results = [_LAYER]
      elif name.startswith(_GIVEN):
        path = name.removeprefix(_GIVEN)
        found[path] = found.get(path, True) and results == [_ARGUMENT]
    inner: list[Any] = [
      getattr(value, 'jaxpr', value)
      for value in jax.tree.leaves(list(equation.params.values()))
      if hasattr(value, 'eqns')
    ]
    plain = len(inner) == 1 and equation.primitive.name not in ('scan', 'while')
    if plain and len(inner[0].invars) == len(operands):
      results = _follow(inner[0], operands, found)
    else:
      # Loops and branches: anything may have come from anything.
      for _ in inner * 2:
        for program in inner:
          every = [results[0]] * len(program.invars)
          results = [results[0] | _any(_follow(program, every, found))]
      results = [_any(results)] * len(equation.outvars)
    sources.update(zip(equation.outvars, results, strict=True))
  return [of(variable) for variable in jaxpr.outvars]


def _any(sources: list[int]) -> int:
  """What some of several values come from."""
  joined = 0
  for source in sources:
    joined |= source
  return joined
