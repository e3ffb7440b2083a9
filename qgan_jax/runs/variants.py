"""From a resolved config to its variant: modules, losses, rounds."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from qgan_jax import models, variants
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.variants import Variant

Modules = Mapping[str, nn.Module]


def refuse_given(config: Any) -> None:
  """Refuses a config that does not say what its networks and images are."""
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
  return _MAKERS[config.variant](config, modules, given)


def _gan(config: Any, modules: Modules, given: Mapping[str, Any]) -> Variant:
  loss = config.loss
  return variants.gan(
    **modules,
    latent_dim=given['latent_dim'],
    num_classes=given['num_classes'],
    loss=loss.name,
    penalty=loss.penalty,
    penalty_weight=loss.penalty_weight,
    penalty_fraction=loss.penalty_fraction,
    d_steps=config.discriminator.steps,
    flip=config.data.flip,
    augment=loss.augment,
    augment_target=loss.augment_target,
    augment_images=loss.augment_images,
  )


def _vae(config: Any, modules: Modules, given: Mapping[str, Any]) -> Variant:
  return variants.vae(
    **modules,
    latent_dim=given['latent_dim'],
    num_classes=given['num_classes'],
    beta=config.loss.beta,
    likelihood=config.loss.likelihood,
    noise=config.loss.noise,
    flip=config.data.flip,
  )


def _vae_gan(
  config: Any, modules: Modules, given: Mapping[str, Any]
) -> Variant:
  loss = config.loss
  return variants.vae_gan(
    **modules,
    latent_dim=given['latent_dim'],
    num_classes=given['num_classes'],
    beta=loss.beta,
    gamma=loss.gamma,
    loss=loss.name,
    penalty=loss.penalty,
    penalty_weight=loss.penalty_weight,
    penalty_fraction=loss.penalty_fraction,
    flip=config.data.flip,
  )


def _pix2pix(
  config: Any, modules: Modules, given: Mapping[str, Any]
) -> Variant:
  loss = config.loss
  return variants.pix2pix(
    **modules,
    input_channels=given['input_channels'],
    l1_weight=loss.l1_weight,
    loss=loss.name,
    penalty=loss.penalty,
    penalty_weight=loss.penalty_weight,
    penalty_fraction=loss.penalty_fraction,
    d_steps=config.discriminator.steps,
    flip=config.data.flip,
  )


def _cyclegan(
  config: Any, modules: Modules, given: Mapping[str, Any]
) -> Variant:
  loss = config.loss
  return variants.cyclegan(
    **modules,
    input_channels=given['input_channels'],
    cycle_weight=loss.cycle_weight,
    loss=loss.name,
    penalty=loss.penalty,
    penalty_weight=loss.penalty_weight,
    penalty_fraction=loss.penalty_fraction,
    d_steps=config.discriminator.steps,
    flip=config.data.flip,
  )


_MAKERS: dict[str, Callable[[Any, Modules, Mapping[str, Any]], Variant]] = {
  'gan': _gan,
  'vae': _vae,
  'vae_gan': _vae_gan,
  'pix2pix': _pix2pix,
  'cyclegan': _cyclegan,
}
