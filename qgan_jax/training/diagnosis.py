"""What quantization does to training: seen from a state, beside the run.

Nothing here touches the run. Gradients come from a copy of its step, whose
optimizers also record what they are given, and move as much as they are told.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from qgan_jax.precision import diagnostics, FLOAT_BITS
from qgan_jax.precision.compile import compile_quickly
from qgan_jax.training.network import Network
from qgan_jax.training.state import TrainState
from qgan_jax.training.step import make_step, to_float

PyTree = Any
Report = dict[str, dict[str, float]]  # 'NETWORK/LAYER/ROLE' → numbers
Diagnose = Callable[[TrainState, Mapping[str, Any]], Report]
NETWORKS = ('generator', 'discriminator')
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
  """The optimizer; its state is (its own, the last gradient, what share)."""

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
  generator: Network,
  discriminator: Network,
  *,
  latent_dim: int,
  num_classes: int,
  penalty: Any,
  **kwargs: Any,
) -> Diagnose:
  """Makes the function that looks at a state.

  Args:
    generator: G, on one device.
    discriminator: D, likewise.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional GAN.
    penalty: of D's gradient, or None.
    **kwargs: the rest of what `make_step` takes.

  Returns:
    (state on the host, batch [1, B, …] as the step takes it) → for every
    quantized tensor the numbers of `diagnostics.summarize`, and of weights
    `flips`, the share that this batch's update puts on another level;
    `gradient_cosine`, of the gradient that training follows, straight through
    the quantizers, with that of the same networks in float; and
    `penalty_cosine`, the same of the penalty's part of it.
  """
  networks = {'generator': generator, 'discriminator': discriminator}
  step = make_step(
    *(
      dataclasses.replace(
        network,
        optimizer=_recorded(network.optimizer),
        quantizer_optimizer=None,
      )
      for network in networks.values()
    ),
    latent_dim=latent_dim,
    num_classes=num_classes,
    penalty=penalty,
    **kwargs,
  )

  def take(
    state: TrainState, batch: Any, float_bits: Any, share: Any, weight: Any
  ) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """(gradients, parameters after so large a share of the step)."""
    parts = {}
    for name in NETWORKS:
      part = getattr(state, name)
      widths = part.bits._replace(sparsity=None)
      widths = jax.tree.map(lambda n: jnp.maximum(n, float_bits), widths)
      none = jax.tree.map(jnp.zeros_like, part.params)
      parts[name] = part.replace(
        bits=widths._replace(sparsity=part.bits.sparsity),
        opt_state=(part.opt_state, none, share),
      )
    hyperparameters = state.hyperparameters._replace(penalty_weight=weight)
    state = state.replace(**parts, hyperparameters=hyperparameters)
    new, _ = step(state, batch)
    return (
      {name: getattr(new, name).opt_state[1] for name in NETWORKS},
      {name: getattr(new, name).params for name in NETWORKS},
    )

  def observe(state: TrainState, batch: Any) -> dict[str, diagnostics.Tensors]:
    size = batch['images'].shape[1]
    labels = batch['labels'][0] if num_classes else None
    inputs = {
      'generator': jax.random.normal(state.key, (size, latent_dim)),
      'discriminator': to_float(batch['images'][0]),
    }
    found = {}
    for name, network in networks.items():
      part = getattr(state, name)
      found[name] = diagnostics.observe(
        network.precision,
        network.module,
        {'params': part.params, **part.stats},
        part.ranges,
        part.bits,
        part.learned,
        inputs[name],
        labels,
      )
    return found

  take, observe = compile_quickly(take), compile_quickly(observe)

  def diagnose(state: TrainState, batch: Mapping[str, Any]) -> Report:
    weight = state.hyperparameters.penalty_weight
    low, high = jnp.float32(-1024), jnp.float32(FLOAT_BITS)
    here, zero = jnp.float32(0), jnp.zeros_like(weight)

    def gradients(float_bits: Any, weight: Any) -> dict[str, PyTree]:
      return jax.device_get(take(state, batch, float_bits, here, weight)[0])

    seen = jax.device_get(observe(state, batch))
    _, params = take(state, batch, low, jnp.float32(1), weight)
    moved = {
      name: getattr(state, name).replace(params=params[name])
      for name in NETWORKS
    }
    after = jax.device_get(observe(state.replace(**moved), batch))
    quantized, in_float = (gradients(n, weight) for n in (low, high))
    extra = [
      {
        name: diagnostics.flip_rates(seen[name], after[name])
        for name in NETWORKS
      },
      {
        name: diagnostics.cosines(quantized[name], in_float[name])
        for name in NETWORKS
      },
    ]
    if penalty is not None:
      # D's gradient is linear in the penalty's weight (of EWGS, to its δ).
      alone = [
        jax.tree.map(
          lambda a, b: a - b,
          whole['discriminator'],
          gradients(n, zero)['discriminator'],
        )
        for whole, n in ((quantized, low), (in_float, high))
      ]
      extra.append({'discriminator': diagnostics.cosines(*alone)})
    report: Report = {}
    for name in NETWORKS:
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
