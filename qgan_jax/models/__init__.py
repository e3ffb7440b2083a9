"""Flax modules that do not know that they are quantized."""

from typing import Any

import flax.linen as nn

from qgan_jax.models import dcgan

_GENERATORS = {'dcgan': dcgan.Generator}
_DISCRIMINATORS = {'dcgan': dcgan.Discriminator}
NAMES = tuple(_GENERATORS)


def make_generator(name: str, **kwargs: Any) -> nn.Module:
  """The generator of a model family; `kwargs` are its attributes."""
  return _GENERATORS[name](**kwargs)


def make_discriminator(name: str, **kwargs: Any) -> nn.Module:
  """The discriminator of a model family; `kwargs` are its attributes."""
  return _DISCRIMINATORS[name](**kwargs)


__all__ = ['NAMES', 'make_discriminator', 'make_generator']
