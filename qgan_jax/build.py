"""From a resolved config to the objects of a run.

Entry points share this: here, and nowhere deeper, a config is unpacked.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from qgan_jax import data, metrics, models
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, make_precision, Precision
from qgan_jax.training import devices, losses
from qgan_jax.training import state as state_lib
from qgan_jax.training import step as step_lib
from qgan_jax.training.optimizers import make_optimizer

PyTree = Any
FLOAT = 32


@dataclasses.dataclass(frozen=True)
class Gan:
  """Both networks, and what an artifact says of the generator.

  Attributes:
    generator: G.
    discriminator: D.
    generator_kwargs: attributes of G's module, as JSON can hold them.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional GAN.
  """

  generator: step_lib.Network
  discriminator: step_lib.Network
  generator_kwargs: dict[str, Any]
  latent_dim: int
  num_classes: int


def load_dataset(config: Any, *, standin: bool) -> data.ImageDataset:
  """The data set of a config.

  Args:
    config: resolved.
    standin: whether digits may stand in, where the config allows it too.

  Raises:
    UserError: it cannot be had, or has no labels and labels are asked for.
  """
  dataset = data.load(
    config.data.source,
    data_dir=config.data.dir,
    image_size=config.data.image_size,
    channels=config.data.channels,
    standin=standin and config.data.standin,
  )
  if config.data.conditional and not dataset.num_classes:
    raise UserError(
      f'data.conditional=True, but {dataset.name} has no labels: put the '
      'images of each class into a sub-folder, or set it to False'
    )
  return dataset


def make_gan(config: Any, dataset: data.ImageDataset) -> Gan:
  """The networks of a config, for the images of a data set."""
  num_classes = dataset.num_classes if config.data.conditional else 0
  shared = {'num_classes': num_classes, 'dtype': config.dtype}
  generator_kwargs = shared | {
    'image_size': dataset.train_images.shape[1],
    'image_channels': dataset.train_images.shape[-1],
    'channels': config.generator.channels,
    'latent_dim': config.generator.latent_dim,
    'norm': config.generator.norm,
  }
  discriminator_kwargs = shared | {
    'channels': config.discriminator.channels,
    'norm': config.discriminator.norm,
    'spectral_norm': config.discriminator.spectral_norm,
  }
  name, axis = config.model.name, devices.AXIS
  return Gan(
    generator=step_lib.Network(
      models.make_generator(name, axis_name=axis, **generator_kwargs),
      _precision(config, config.generator.bits),
      _optimizer(config.generator),
    ),
    discriminator=step_lib.Network(
      models.make_discriminator(name, axis_name=axis, **discriminator_kwargs),
      _precision(config, config.discriminator.bits),
      _optimizer(config.discriminator),
    ),
    generator_kwargs=generator_kwargs,
    latent_dim=config.generator.latent_dim,
    num_classes=num_classes,
  )


def _precision(config: Any, bits: Any) -> Precision:
  """A network in float is exactly the unquantized one: nothing is caught."""
  precision = make_precision(
    weights=config.precision.quantizer,
    activations=config.precision.activation_quantizer,
    per_channel=config.precision.per_channel,
    ranges=config.precision.ranges,
    momentum=config.precision.momentum,
    input_bits=config.precision.input_bits,
  )
  if bits.weights >= FLOAT:
    precision = dataclasses.replace(precision, weights=None)
  if bits.activations >= FLOAT:
    precision = dataclasses.replace(precision, activations=None)
  return precision


def _optimizer(network: Any) -> Any:
  return make_optimizer(
    network.optimizer,
    network.learning_rate,
    **network.optimizer_kwargs,
  )


def make_state(
  config: Any, gan: Gan, dataset: data.ImageDataset
) -> state_lib.TrainState:
  """The state before the first step, on the host; the seed decides it."""
  size = min(64, len(dataset.train_images))
  images = dataset.train_images[:size]
  labels = jnp.arange(size) % gan.num_classes if gan.num_classes else None

  @jax.jit
  def init(key: jax.Array, images: jax.Array) -> state_lib.TrainState:
    g_key, d_key, latents_key, run_key = jax.random.split(key, 4)
    latents = jax.random.normal(latents_key, (size, gan.latent_dim))
    parts = [
      state_lib.init_network(
        network.module,
        network.precision,
        network.optimizer,
        Bits(jnp.float32(bits.weights), jnp.float32(bits.activations)),
        key,
        example,
        labels,
      )
      for network, bits, key, example in (
        (gan.generator, config.generator.bits, g_key, latents),
        (
          gan.discriminator,
          config.discriminator.bits,
          d_key,
          step_lib.to_float(images),
        ),
      )
    ]
    return state_lib.init_state(run_key, *parts)

  return jax.device_get(init(jax.random.PRNGKey(config.seed), images))


def make_train_step(config: Any, gan: Gan) -> Any:
  """The pmapped step, over all devices of all processes."""
  penalty = losses.PENALTIES.get(config.loss.penalty)
  step = step_lib.make_step(
    gan.generator,
    gan.discriminator,
    loss=losses.LOSSES[config.loss.name],
    latent_dim=gan.latent_dim,
    num_classes=gan.num_classes,
    penalty=penalty,
    penalty_weight=config.loss.penalty_weight,
    penalty_fraction=config.loss.penalty_fraction,
    ema_decay=config.ema.decay,
    axis_name=devices.AXIS,
    num_shards=jax.device_count(),
  )
  return devices.parallel(step)


def make_extractor(
  config: Any, dataset: data.ImageDataset
) -> metrics.Extractor:
  """What gives the features that scores compare."""
  if config.scores.extractor == 'inception':
    return metrics.inception_extractor(config.scores.inception_weights)
  return metrics.classifier_extractor(
    dataset.name,
    dataset.train_images,
    dataset.train_labels,
    dataset.test_images,
    dataset.test_labels,
    dataset.num_classes,
  )


def artifact_kwargs(
  config: Any, gan: Gan, state: state_lib.TrainState
) -> Mapping[str, Any]:
  """What `artifacts.save_generator` needs of a state, on the host."""
  return {
    'model': config.model.name,
    'model_kwargs': gan.generator_kwargs,
    'variables': {'params': state.average['params'], **state.average['stats']},
    'ranges': state.generator.ranges,
    'precision': gan.generator.precision,
    'bits': state.generator.bits,
  }
