"""Which of the package's arguments a module of somebody else's takes."""

from collections.abc import Mapping, Sequence
import inspect
from typing import Any

import flax.linen as nn

_POSITIONAL = (
  inspect.Parameter.POSITIONAL_ONLY,
  inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def arguments_for(
  module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
  """What of some arguments a module can be applied with.

  The package offers the same ones to every module, `(latents, labels or None)`
  and `train`, and one that was written by somebody else need not have them all.

  Args:
    module: any Linen module.
    args: positional arguments.
    kwargs: for `module.apply`; `train` is False if it is not among them.

  Returns:
    The positional arguments without those at the end that are None and one too
    many, and the keyword arguments that `apply` has or what is called.
  """
  method = kwargs.get('method') or module
  called = getattr(module, method) if isinstance(method, str) else method
  while isinstance(called, nn.Sequential):  # Its first layer is given them.
    called = called.layers[0]
  parameters = inspect.signature(called).parameters
  kinds = [parameter.kind for parameter in parameters.values()]
  places = sum(kind in _POSITIONAL for kind in kinds)
  if inspect.Parameter.VAR_POSITIONAL not in kinds:
    while len(args) > places and args[-1] is None:
      args = args[:-1]
  known = {*parameters, *inspect.signature(nn.Module.apply).parameters}
  if inspect.Parameter.VAR_KEYWORD in kinds:
    known |= kwargs.keys()
  kwargs = {'train': False, **kwargs}
  return tuple(args), {k: v for k, v in kwargs.items() if k in known}
