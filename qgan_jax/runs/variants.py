"""Makes the variant of a resolved config: modules, losses, rounds."""

import inspect
from typing import Any

from qgan_jax import models, variants
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.variants import Variant


def refuse_given(config: Any) -> None:
  """Raises an error for a run whose networks and images come from Python.

  Raises:
    UserError: the config is of such a run.
  """
  if config.model.name.startswith(f'{models.GIVEN}:'):
    raise UserError(
      'networks and images of this run were given in Python; go on with it '
      'there, by `qgan_jax.train`'
    )


def make_variant(config: Any, dataset: ImageDataset) -> Variant:
  """The variant of a config.

  Args:
    config: resolved.
    dataset: its images.

  Raises:
    UserError: its networks were given in Python.
  """
  refuse_given(config)
  num_classes = dataset.num_classes if config.data.conditional else 0
  height, width = dataset.train_images.shape[1:3]
  given = {
    'image_size': height if height == width else (height, width),
    'image_channels': dataset.train_targets.shape[-1],
    'input_channels': dataset.input_channels,
    'latent_dim': config.generator.latent_dim,
    'spectral_norm': config.discriminator.spectral_norm,
    'attention': config.model.attention,
    'dropout': config.generator.dropout,
    'with_features': config.variant == 'vae_gan',
    'num_classes': num_classes,
    'dtype': config.dtype,
  }
  modules = {}
  for name, role in variants.CLASSES[config.variant].items():
    own = config.generator if role == 'Generator' else config.discriminator
    attributes = models.attributes(
      config.model.name,
      role,
      {**given, 'channels': own.channels, 'norm': own.norm},
    )
    modules[name] = models.find(config.model.name, role)(**attributes)
  make = getattr(variants, config.variant)
  settings = {
    **config.loss,
    **given,
    'loss': config.loss.name,
    'd_steps': config.discriminator.steps,
    'flip': config.data.flip,
  }
  taken = inspect.signature(make).parameters
  return make(
    **modules, **{name: x for name, x in settings.items() if name in taken}
  )
