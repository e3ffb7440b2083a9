"""Optimizers by name: Optax's own, and SGD with momentum."""

from collections.abc import Mapping
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from qgan_jax.errors import did_you_mean, UserError

_POSITIVE = ('scale', 'alpha', 'clip')
_LEARNED = (*_POSITIVE, 'offset', 'centroids')


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

  Adam with steps proportional to the parameter: scales of 0.01 and of 10 both
  change by at most about `learning_rate` of themselves in a step, so that
  neither jumps over 0. Parameters that may be 0 or below (offsets, centroids)
  move in proportion to the root mean square of the largest of their quantizer's
  learned parameters. Adam cancels constant factors of the gradient, so LSQ's
  1/√(N·Qp) (Esser et al., https://arxiv.org/abs/1902.08153) has no effect here,
  nor has the number of devices that share N.

  Args:
    learning_rate: the largest relative change in a step, about.

  Returns:
    An optimizer of {role: {layer: {name: array}}}, which a larger tree may
    hold: `optax.multi_transform` gives the rest to others.
  """

  def in_proportion(updates: Any, params: Any) -> Any:
    if not isinstance(params, Mapping):
      return updates  # `multi_transform` hides what others update.
    # A flag of a quantizer ('signed') has no gradient, and no size.
    sizes = [
      jnp.sqrt(jnp.mean(jnp.square(value)))
      for name, value in params.items()
      if name in _LEARNED and hasattr(value, 'shape')
    ]
    if not sizes:
      return {key: in_proportion(updates[key], params[key]) for key in updates}
    largest = functools.reduce(jnp.maximum, sizes)
    return {
      name: update * jnp.abs(params[name])
      if name in _POSITIVE
      else update * largest
      for name, update in updates.items()
    }

  return optax.chain(
    # Gradients of scales are small: Optax's eps=1e-8 would shorten the steps.
    optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-20),
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
    The optimizer, with Optax's defaults for what is not given. What is given is
    an array in its state, `hyperparams`: one compiled step serves every value.

  Raises:
    UserError: there is no such optimizer, or it takes no such argument.
  """
  name = name.removeprefix('optax.')
  if name not in OPTIMIZERS:
    hint = did_you_mean(name, OPTIMIZERS) or 'try adam or sgd'
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
  except TypeError:  # For example, a line search needs the loss itself.
    raise UserError(
      f'optimizer={name!r} needs more than gradients and parameters; '
      'choose another, such as adam'
    ) from None
  return optimizer


DECAYS = ('none', 'linear', 'cosine')


def make_decay(name: str, steps: int) -> optax.Schedule:
  """The factor on learning rates at each step.

  Weights near the edge between two levels keep changing their level as long as
  steps are long; a rate that ends at 0 lets them settle.

  Args:
    name: one of `DECAYS`.
    steps: of the whole run.

  Returns:
    step → 1 throughout, or falling from 1 to 0, in a line or as half a cosine
    (Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, eq. 5).
  """
  if name == 'linear':
    return optax.linear_schedule(1.0, 0.0, steps)
  if name == 'cosine':
    return optax.cosine_decay_schedule(1.0, steps)
  return optax.constant_schedule(1.0)
