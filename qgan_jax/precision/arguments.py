"""Selects the arguments that a module of any origin accepts."""

from collections.abc import Mapping, Sequence
import inspect
import itertools
from typing import Any

import flax.linen as nn

_POSITIONAL = (
  inspect.Parameter.POSITIONAL_ONLY,
  inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def arguments_for(
  module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
  """Selects those of some arguments that a module can be applied with.

  This package calls every module with the same arguments,
  `(latents, labels or None)` and `train`. A module that a user has written need
  not have all of them.

  Args:
    module: any Linen module.
    args: positional arguments.
    kwargs: for `module.apply`; `train` is False if it is not among them.

  Returns:
    The positional arguments, without trailing ones that are None and that the
    module does not take; and those keyword arguments that `apply` or the called
    method has.
  """
  method = kwargs.get('method') or module
  called = getattr(module, method) if isinstance(method, str) else method
  while isinstance(called, nn.Sequential):  # Its first layer is given them.
    called = called.layers[0]
  parameters = inspect.signature(called).parameters
  named = {'train', *kwargs}
  kinds = [parameter.kind for parameter in parameters.values()]
  # Up to the first that is given by its name, such as `train`.
  before = itertools.takewhile(lambda name: name not in named, parameters)
  places = sum(parameters[name].kind in _POSITIONAL for name in before)
  if inspect.Parameter.VAR_POSITIONAL not in kinds:
    while len(args) > places and args[-1] is None:
      args = args[:-1]
  known = {*parameters, *inspect.signature(nn.Module.apply).parameters}
  if inspect.Parameter.VAR_KEYWORD in kinds:
    known |= kwargs.keys()
  kwargs = {'train': False, **kwargs}
  return tuple(args), {k: v for k, v in kwargs.items() if k in known}
