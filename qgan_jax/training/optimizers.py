"""Optimizers by name: Optax's own, and SGD with momentum."""

import difflib
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from qgan_jax.errors import UserError


def _takes_learning_rate(function: Any) -> bool:
  if not inspect.isfunction(function):
    return False
  return next(iter(inspect.signature(function).parameters), '') == (
    'learning_rate'
  )


OPTIMIZERS = {
  name: function
  for name, function in vars(optax).items()
  if _takes_learning_rate(function) and not name.startswith(('_', 'scale_by'))
}
OPTIMIZERS['momentum'] = functools.partial(optax.sgd, momentum=0.9)


def make_quantizer_optimizer(
  learning_rate: float,
) -> optax.GradientTransformation:
  """The optimizer of learned quantizers' parameters.

  Adam, whose steps are in proportion to what it moves: scales of 0.01 and of
  10 both change by about `learning_rate` of themselves in a step. In
  proportion to the largest entry of a quantizer, so that an offset beside a
  scale moves with it even from 0. A scale cannot jump over 0, and needs no
  gradient scale (LSQ's, Esser et al., https://arxiv.org/abs/1902.08153, is
  cancelled by Adam).

  Args:
    learning_rate: the share of themselves that parameters may move in a step.

  Returns:
    An optimizer of {role: {layer: {name: array}}}.
  """

  def in_proportion(
    updates: optax.Updates, params: optax.Params
  ) -> optax.Updates:
    def scaled(update: Any, entries: Any) -> Any:
      leaves = jax.tree.leaves(entries)
      largest = functools.reduce(
        jnp.maximum, (jnp.sqrt(jnp.mean(jnp.square(x))) for x in leaves)
      )
      return jax.tree.map(lambda u: u * largest, update)

    return {
      role: {
        layer: scaled(update, params[role][layer])
        for layer, update in layers.items()
      }
      for role, layers in updates.items()
    }

  return optax.chain(
    optax.scale_by_adam(b1=0.9, b2=0.99),
    optax.stateless(in_proportion),
    optax.scale_by_learning_rate(learning_rate),
  )


def make_optimizer(
  name: str, learning_rate: float, **kwargs: float
) -> optax.GradientTransformation:
  """An optimizer by name.

  Args:
    name: 'momentum' (SGD with momentum 0.9) or any optimizer of Optax's that
      takes a learning rate and needs nothing but gradients and parameters:
      'sgd', 'adagrad', 'adam', 'lion'…, also written 'optax.lion'.
    learning_rate: the step size, positive.
    **kwargs: the optimizer's other arguments, such as b1 and b2.

  Returns:
    The optimizer, with Optax's defaults where `kwargs` says nothing. What is
    given is an array in its state, `hyperparams`: one compiled step serves
    every learning rate.

  Raises:
    UserError: there is no such optimizer, or it takes no such argument.
  """
  name = name.removeprefix('optax.')
  if name not in OPTIMIZERS:
    nearest = difflib.get_close_matches(name, OPTIMIZERS, n=1)
    hint = f'did you mean {nearest[0]!r}?' if nearest else 'try adam or sgd'
    raise UserError(
      f'optimizer={name!r} is no optimizer of Optax that takes a learning '
      f'rate; {hint}'
    )
  parameters = inspect.signature(OPTIMIZERS[name]).parameters
  for key in kwargs:
    if key not in parameters:
      raise UserError(
        f'the optimizer {name!r} takes no {key!r}; its arguments are '
        f'{", ".join(parameters)}'
      )
  fixed = [key for key in parameters if key not in ('learning_rate', *kwargs)]
  optimizer = optax.inject_hyperparams(OPTIMIZERS[name], static_args=fixed)(
    learning_rate=learning_rate, **kwargs
  )
  try:  # Shapes alone: nothing is compiled.
    w = jax.ShapeDtypeStruct((2, 2), jnp.float32)
    jax.eval_shape(lambda w: optimizer.update(w, optimizer.init(w), w), w)
  except TypeError:  # A line search wants the loss itself, for one.
    raise UserError(
      f'optimizer={name!r} needs more than gradients and parameters; '
      'choose another, such as adam'
    ) from None
  return optimizer
