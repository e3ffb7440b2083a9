"""How and when the networks of a resolved config are quantized."""

from collections.abc import Collection, Mapping
import dataclasses
from typing import Any

import jax

from qgan_jax.config import NETWORKS
from qgan_jax.precision import (
  Bits,
  FLOAT_BITS,
  make_precision,
  Precision,
  QuantizerSpec,
)
from qgan_jax.precision import rules as rules_lib
from qgan_jax.precision.layers import Layer
from qgan_jax.precision.schedule import Schedule
from qgan_jax.precision.table import Choice


def plan_precision(
  config: Any,
  sections: Mapping[str, Any],
  layers: Mapping[str, tuple[Layer, ...]],
  see_images: Collection[str] = (),
) -> tuple[dict[str, Precision], dict[str, Bits], list[Choice]]:
  """How a config quantizes networks with these layers.

  Args:
    config: resolved.
    sections: of each network, the part of the config that is about it.
    layers: of each network, the layers that rules can match.
    see_images: names of the networks whose input is images.

  Returns:
    (precision by network, bits by network as plain numbers, the table of every
    layer). A network in float is exactly the unquantized one: no call of its
    layers is intercepted.

  Raises:
    UserError: a rule matches nothing, or a layer that does not support it.
  """
  p = config.precision
  defaults = {
    network: rules_lib.Defaults(
      dataclasses.replace(
        make_precision(
          weights=p.quantizer,
          activations=sections[network].activation_quantizer,
          per_channel=p.per_channel,
          ranges=p.ranges,
          momentum=p.momentum,
          input_bits=p.input_bits,
        ),
        gradients=QuantizerSpec(p.gradient_quantizer),
      ),
      Bits(
        sections[network].bits.weights,
        sections[network].bits.activations,
        None if p.gradient_bits >= FLOAT_BITS else p.gradient_bits,
        sections[network].sparsity or None,
      ),
      # Images are quantized as the bytes that they were.
      input_quantizer='pixels' if network in see_images else None,
      start_step=p.start_step,
    )
    for network in layers
  }
  rules = rules_lib.parse_rules(p.rules, layers)
  return rules_lib.resolve_rules(layers, defaults, rules)


def describe_schedule(config: Any, bits: Mapping[str, Bits]) -> str:
  """When a config quantizes and prunes, in words.

  They tell the step from which it quantizes, and what the last step has where
  the steps end before a schedule does.

  Args:
    config: resolved.
    bits: of `plan_precision`: rules give layers bits of their own.
  """
  p, schedule, last = config.precision, make_schedule(config), config.steps - 1
  networks = [config[name] for name in NETWORKS]
  if p.start_step >= config.steps:
    parts = [f'in float for all {config.steps:,} steps, and rounded afterwards']
  else:
    parts = [f'quantized from step {p.start_step:,} of {config.steps:,}']
    targets = [found._replace(sparsity=None) for found in bits.values()]
    widths = set(jax.tree.leaves(targets))
    if p.anneal_steps and min(widths) < p.anneal_from:
      parts.append(
        f'from {p.anneal_from} bits down to these in {p.anneal_steps:,} steps'
      )
    for n in sorted(widths):
      end, target = (f'{float(x):g}' for x in (schedule.bits_at(n, last), n))
      if end != target:
        parts.append(
          f'but the last step still has {end} bits where these are {target}'
        )
  for share in sorted({network.sparsity for network in networks}):
    end, target = (
      f'{float(x):.1%}' for x in (schedule.sparsity_at(share, last), share)
    )
    if end != target:
      parts.append(
        f'but the last step still prunes {end} of the weights, not {target}'
      )
  return ', '.join(parts)


def make_schedule(config: Any) -> Schedule:
  """The schedule by which a config's networks are quantized and pruned."""
  names = [field.name for field in dataclasses.fields(Schedule)]
  return Schedule(**{name: config.precision[name] for name in names})
