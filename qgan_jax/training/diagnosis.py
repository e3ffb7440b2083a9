"""Measures what quantization does to training, given a state of a run.

Nothing here changes the run. Gradients come from a copy of its step whose
optimizers record the gradients they get and scale their updates by a given
share.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qgan_jax.precision import diagnostics, FLOAT_BITS
from qgan_jax.precision.compile import compile_quickly
from qgan_jax.training.state import TrainState
from qgan_jax.training.step import make_step, to_float
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import Variant

PyTree = Any
# The numbers of each tensor, by 'NETWORK/LAYER/ROLE'.
Report = dict[str, dict[str, float]]
Diagnose = Callable[[TrainState, Mapping[str, Any]], Report]
_COLUMNS = {
  'bits': '{:g}',
  'sqnr_db': '{:.1f}',
  'clipped': '{:.2%}',
  'used': '{:.0%}',
  'dead': '{:.0f}',
  'entropy': '{:.2f}',
  'flips': '{:.2%}',
  'gradient_cosine': '{:.3f}',
  'penalty_cosine': '{:.3f}',
}


def _recorded(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """The optimizer; its state is (its own, last gradient, scale of updates)."""

  def init(params):
    own = optimizer.init(params)
    return own, jax.tree.map(jnp.zeros_like, params), jnp.zeros(())

  def update(grads, state, params=None):
    own, _, share = state
    updates, own = optimizer.update(grads, own, params)
    updates = jax.tree.map(lambda u: share * u, updates)
    return updates, (own, grads, share)

  return optax.GradientTransformation(init, update)


def make_diagnose(
  variant: Variant, networks: Mapping[str, Trainable], **kwargs: Any
) -> Diagnose:
  """Makes the function that looks at a state.

  Args:
    variant: networks, losses, who is updated when.
    networks: its networks, on one device.
    **kwargs: the rest of what `make_step` takes.

  Returns:
    (state on the host, batch [1, B, …] as the step takes it) → for every
    quantized tensor the numbers of `diagnostics.summarize`, and of weights
    `flips`, the share that this batch's update puts on another level;
    `gradient_cosine`, of the gradient that training follows, straight through
    the quantizers, with that of the same networks in float; and
    `penalty_cosine`, the same of the penalty's part of it.
  """
  # One update of each network tells enough.
  step = make_step(
    dataclasses.replace(variant, repeats=1),
    {
      name: dataclasses.replace(
        network,
        optimizer=_recorded(network.optimizer),
        quantizer_optimizer=None,
      )
      for name, network in networks.items()
    },
    **kwargs,
  )

  def take(
    state: TrainState, batch: Any, float_bits: Any, share: Any, weight: Any
  ) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """(gradients, parameters after `share` of an update), at raised bits.

    Args:
      state: of the run.
      batch: of one step.
      float_bits: bit widths below this are raised to it.
      share: of the update that is taken; 0 leaves the parameters.
      weight: of the penalty.
    """
    parts = {}
    for name, part in state.networks.items():
      widths = part.bits._replace(sparsity=None)
      widths = jax.tree.map(lambda n: jnp.maximum(n, float_bits), widths)
      none = jax.tree.map(jnp.zeros_like, part.params)
      parts[name] = part.replace(
        bits=widths._replace(sparsity=part.bits.sparsity),
        opt_state=(part.opt_state, none, share),
      )
    numbers = state.hyperparameters
    if variant.penalized:
      numbers = numbers._replace(
        variant={**numbers.variant, 'penalty_weight': weight}
      )
    state = state.replace(networks=parts, hyperparameters=numbers)
    new, _ = step(state, batch)
    return (
      {name: part.opt_state[1] for name, part in new.networks.items()},
      {name: part.params for name, part in new.networks.items()},
    )

  def observe(state: TrainState, batch: Any) -> dict[str, diagnostics.Tensors]:
    first = {
      name: to_float(x[0]) if x.dtype == jnp.uint8 else x[0]
      for name, x in batch.items()
    }
    inputs = variant.examples(first, state.key)
    found = {}
    for name, network in networks.items():
      part = state.networks[name]
      found[name] = diagnostics.observe(
        network.precision,
        network.module,
        {'params': part.params, **part.stats},
        part.ranges,
        part.bits,
        part.learned,
        *inputs[name],
      )
    return found

  take, observe = compile_quickly(take), compile_quickly(observe)

  def diagnose(state: TrainState, batch: Mapping[str, Any]) -> Report:
    weight = state.hyperparameters.variant.get('penalty_weight', np.float32(0))
    low, high = jnp.float32(-1024), jnp.float32(FLOAT_BITS)
    here, zero = jnp.float32(0), jnp.zeros_like(weight)

    def gradients(float_bits: Any, weight: Any) -> dict[str, PyTree]:
      return jax.device_get(take(state, batch, float_bits, here, weight)[0])

    seen = jax.device_get(observe(state, batch))
    _, params = take(state, batch, low, jnp.float32(1), weight)
    moved = {
      name: part.replace(params=params[name])
      for name, part in state.networks.items()
    }
    after = jax.device_get(observe(state.replace(networks=moved), batch))
    quantized, in_float = (gradients(n, weight) for n in (low, high))
    extra = [
      {
        name: diagnostics.flip_rates(seen[name], after[name])
        for name in networks
      },
      {
        name: diagnostics.cosines(quantized[name], in_float[name])
        for name in networks
      },
    ]
    if variant.penalized:
      # A gradient is linear in the penalty's weight (with EWGS nearly so): the
      # penalty's part of it is the whole less the gradient at weight 0.
      alone = [
        jax.tree.map(lambda a, b: a - b, whole, gradients(n, zero))
        for whole, n in ((quantized, low), (in_float, high))
      ]
      extra.append(
        {
          name: diagnostics.cosines(*(part[name] for part in alone))
          for name in variant.penalized
        }
      )
    report: Report = {}
    for name in networks:
      for place, numbers in diagnostics.summarize(seen[name]).items():
        for key, values in zip(
          ('flips', 'gradient_cosine', 'penalty_cosine'), extra, strict=False
        ):
          if place in values.get(name, {}):
            numbers[key] = values[name][place]
        report[f'{name}/{place}'] = numbers
    return report

  return diagnose


def format_report(report: Report) -> str:
  """A report as a table, a line for every quantized tensor."""
  rows: list[Sequence[str]] = [('tensor', *_COLUMNS)]
  for place, numbers in report.items():
    cells = (
      form.format(numbers[key]) if key in numbers else '-'
      for key, form in _COLUMNS.items()
    )
    rows.append((place, *cells))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows
  )
