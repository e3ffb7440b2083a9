"""Families of networks: Flax modules that do not know that they are quantized.

A family is a module with a `Generator` and a `Discriminator`. A family of your
own is named by its import path: `model=my_package.networks`. Each class is
given those of these attributes that it declares:

  Generator      image_size, image_channels, channels, latent_dim, norm,
                 attention, num_classes, dropout, dtype
  Discriminator  channels, norm, spectral_norm, attention, num_classes, dtype
"""

from collections.abc import Mapping
import dataclasses
import importlib
from typing import Any

import flax.linen as nn

from qgan_jax.errors import did_you_mean, UserError
from qgan_jax.models import dcgan, r3gan, resnet, translator, unet

_FAMILIES = {
  'dcgan': dcgan,
  'resnet': resnet,
  'r3gan': r3gan,
  'unet': unet,
  'translator': translator,
}
NAMES = tuple(_FAMILIES)
# Families whose generator takes images, not latents.
FROM_IMAGES = ('unet', 'translator')
# The largest values of a network's attributes, in training and in files.
LIMITS = {
  'image_size': 256,
  'channels': 4096,
  'latent_dim': 2**20,
  'blocks': 64,
}
# Stands for a family's name where networks were given as Python objects.
GIVEN = 'given'


def find(name: str, role: str) -> type[nn.Module]:
  """The class of a family's network.

  Args:
    name: a family in `NAMES`, or the import path of a module of your own.
    role: 'Generator' or 'Discriminator'.

  Raises:
    UserError: there is no such module, it fails, or it has no such class.
  """
  family: Any = _FAMILIES.get(name)
  if family is None:
    try:
      family = importlib.import_module(name)
    except Exception as error:
      hint = did_you_mean(name, NAMES)
      raise UserError(
        f'model={name}: there is no such family, and no module of that name '
        f'can be imported ({type(error).__name__}: {error}); '
        + (hint or f'the families are {", ".join(NAMES)}')
      ) from None
  found = getattr(family, role, None)
  if not (isinstance(found, type) and issubclass(found, nn.Module)):
    raise UserError(
      f'model={name}: the module has no class {role}, a flax.linen.Module'
    )
  return found


def attributes(
  name: str, role: str, given: Mapping[str, Any]
) -> dict[str, Any]:
  """Keeps those of the given attributes that a family's class declares."""
  fields = {field.name for field in dataclasses.fields(find(name, role))}
  return {key: value for key, value in given.items() if key in fields}


def make_generator(name: str, **kwargs: Any) -> nn.Module:
  """The generator of a family; `kwargs` are its attributes."""
  return find(name, 'Generator')(**kwargs)


def make_discriminator(name: str, **kwargs: Any) -> nn.Module:
  """The discriminator of a family; `kwargs` are its attributes."""
  return find(name, 'Discriminator')(**kwargs)


__all__ = [
  'FROM_IMAGES',
  'GIVEN',
  'LIMITS',
  'NAMES',
  'attributes',
  'find',
  'make_discriminator',
  'make_generator',
]
