"""Which trials share one compiled program, and how it is made."""

from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from qgan_jax.config import leaves, NETWORKS, ROLES
from qgan_jax.errors import UserError
from qgan_jax.training import devices

# Keys that a program takes as arrays; trials that differ in no other share it.
_TRACED = (
  'seed',
  'init_from',
  'loss.penalty_weight',
  'loss.beta',
  'loss.gamma',
  'loss.noise',
  'loss.l1_weight',
  'loss.cycle_weight',
  'loss.augment_target',
  'loss.augment_images',
  'ema.decay',
  *(f'{network}.bits.{role}' for network in NETWORKS for role in ROLES),
  *(f'{network}.learning_rate' for network in NETWORKS),
)
_TRACED_GROUPS = tuple(f'{network}.optimizer_kwargs.' for network in NETWORKS)


def program_key(config: Any) -> tuple[tuple[str, Any], ...]:
  """What trials must have in common to share one program."""
  return tuple(
    (path, None if path.startswith(_TRACED_GROUPS) else value)
    for path, value in leaves(config).items()
    if path not in _TRACED
  )


def shared_config(configs: Sequence[Any]) -> Any:
  """The config of a shared program: for each role, the fewest bits of all."""
  shared = configs[0].to_dict()
  for network in NETWORKS:
    for role in ROLES:
      shared[network]['bits'][role] = min(
        config[network].bits[role] for config in configs
      )
  return FrozenConfigDict(shared)


def make_layout(
  config: Any, members: int, on: Sequence[jax.Device] | None = None
) -> devices.Layout:
  """The devices on which the trials of a program train.

  Args:
    config: of a trial, resolved.
    members: number of trials.
    on: devices of all processes; None for those of this run.

  Raises:
    UserError: the batch cannot be divided among the devices of a trial.
  """
  layout = devices.make_layout(members, devices=on)
  if config.batch_size % layout.group:
    count = layout.group
    raise UserError(
      f'batch_size={config.batch_size} does not divide over {count} devices; '
      f'give a multiple, such as {-(-config.batch_size // count) * count}'
    )
  return layout
