"""From a resolved config to the objects of a run.

Entry points share this: here, and nowhere deeper, a config is unpacked.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax import data, metrics, models
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits, Quantized
from qgan_jax.precision.compile import compile_quickly
from qgan_jax.precision.layers import find_layers, Layer
from qgan_jax.precision.table import Choice
from qgan_jax.runs.precision import make_schedule, plan_precision
from qgan_jax.training import devices, diagnosis, losses
from qgan_jax.training import state as state_lib
from qgan_jax.training import step as step_lib
from qgan_jax.training.network import Network
from qgan_jax.training.optimizers import (
  make_decay,
  make_optimizer,
  make_quantizer_optimizer,
)
from qgan_jax.training.refit import Refit
from qgan_jax.training.sampling import Sampler

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Gan:
  """Both networks, and what an artifact says of the generator.

  Attributes:
    generator: G.
    discriminator: D.
    generator_kwargs: attributes of G's module, as JSON can hold them.
    latent_dim: length of a latent.
    num_classes: 0 for an unconditional GAN.
    layers: of each network, what rules can speak of.
    table: what every layer is quantized with.
  """

  generator: Network
  discriminator: Network
  generator_kwargs: dict[str, Any]
  latent_dim: int
  num_classes: int
  layers: Mapping[str, tuple[Layer, ...]]
  table: list[Choice]


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


def make_gan(
  config: Any,
  dataset: data.ImageDataset,
  layout: devices.Layout | None = None,
) -> Gan:
  """The networks of a config, for the images of a data set.

  Args:
    config: resolved.
    dataset: the images.
    layout: of the members that train together; one alone if None.

  Raises:
    UserError: a rule of precision catches nothing, or what it must not.
  """
  layout = layout or devices.make_layout(1)
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
  name = config.model.name
  axis: dict[str, Any] = {
    'axis_name': layout.axis_name,
    'axis_groups': layout.axis_groups,
  }
  modules = {
    'generator': models.make_generator(name, **axis, **generator_kwargs),
    'discriminator': models.make_discriminator(
      name, **axis, **discriminator_kwargs
    ),
  }
  labels = jax.ShapeDtypeStruct((1,), jnp.int32) if num_classes else None
  inputs = {
    'generator': (config.generator.latent_dim,),
    'discriminator': dataset.train_images.shape[1:],
  }
  layers = {
    network: find_layers(
      module, jax.ShapeDtypeStruct((1, *inputs[network]), jnp.float32), labels
    )
    for network, module in modules.items()
  }
  precisions, _, table = plan_precision(config, layers)
  generator, discriminator = (
    Network(
      module,
      precisions[network],
      _optimizer(config[network]),
      make_quantizer_optimizer(config.precision.learning_rate),
    )
    for network, module in modules.items()
  )
  return Gan(
    generator=generator,
    discriminator=discriminator,
    generator_kwargs=generator_kwargs,
    latent_dim=config.generator.latent_dim,
    num_classes=num_classes,
    layers=layers,
    table=table,
  )


def _optimizer(network: Any) -> Any:
  return make_optimizer(
    network.optimizer,
    network.learning_rate,
    **network.optimizer_kwargs,
  )


def make_states(
  configs: Sequence[Any],
  gan: Gan,
  dataset: data.ImageDataset,
  starts: Sequence[Any] = (),
) -> list[state_lib.TrainState]:
  """The states before the first step, on the host; the seeds decide them.

  Args:
    configs: resolved, each a member's that trains by the same program.
    gan: their networks.
    dataset: the images.
    starts: of each member, variables by network to start from, or None.
  """
  init = compile_quickly(_make_init(gan, dataset))
  return [
    _with_hyperparameters(
      jax.device_get(
        init(jax.random.PRNGKey(config.seed), _bits(config, gan), start)
      ),
      config,
    )
    for config, start in itertools.zip_longest(configs, starts)
  ]


def make_state(
  config: Any, gan: Gan, dataset: data.ImageDataset
) -> state_lib.TrainState:
  """The state of one run before the first step; see `make_states`."""
  return make_states([config], gan, dataset)[0]


def state_shapes(
  config: Any, gan: Gan, dataset: data.ImageDataset
) -> state_lib.TrainState:
  """The state's structure, `jax.ShapeDtypeStruct`s; nothing is compiled."""
  return jax.eval_shape(
    _make_init(gan, dataset), jax.random.PRNGKey(0), _bits(config, gan)
  )


def _bits(config: Any, gan: Gan) -> tuple[Bits, Bits]:
  """The bits of G and D, arrays."""
  _, bits, _ = plan_precision(config, gan.layers)
  return (
    jax.tree.map(jnp.float32, bits['generator']),
    jax.tree.map(jnp.float32, bits['discriminator']),
  )


def _make_init(gan: Gan, dataset: data.ImageDataset) -> Any:
  """The function (key, bits of G and D, variables to start from) → state."""

  def init(
    key: jax.Array, bits: tuple[Bits, Bits], start: Any = None
  ) -> state_lib.TrainState:
    start = start or {'generator': None, 'discriminator': None}
    g_key, d_key, latents_key, run_key = jax.random.split(key, 4)
    parts = [
      state_lib.init_network(
        network.module,
        network.precision,
        network.optimizer,
        widths,
        key,
        *inputs,
        quantizer_optimizer=network.quantizer_optimizer,
        variables=variables,
      )
      for network, widths, key, inputs, variables in zip(
        (gan.generator, gan.discriminator),
        bits,
        (g_key, d_key),
        _examples(gan, dataset, latents_key),
        (start['generator'], start['discriminator']),
        strict=True,
      )
    ]
    return state_lib.init_state(run_key, *parts)

  return init


def _examples(
  gan: Gan, dataset: data.ImageDataset, key: jax.Array
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
  """Arguments of G and of D that their quantizers are fitted to."""
  size = min(64, len(dataset.train_images))
  labels = jnp.arange(size) % gan.num_classes if gan.num_classes else None
  latents = jax.random.normal(key, (size, gan.latent_dim))
  images = step_lib.to_float(jnp.asarray(dataset.train_images[:size]))
  return (latents, labels), (images, labels)


def make_refit(config: Any, gan: Gan, dataset: data.ImageDataset) -> Refit:
  """What fits learned quantizers anew where the bits change.

  Args:
    config: resolved.
    gan: its networks.
    dataset: the images.
  """
  inputs = _examples(gan, dataset, jax.random.PRNGKey(0))
  return Refit(gan.generator, gan.discriminator, make_schedule(config), *inputs)


def make_sampler(config: Any, gan: Gan) -> Sampler:
  """What draws from the states of a run.

  Args:
    config: resolved.
    gan: its networks, on one device.
  """
  return Sampler(
    gan.generator, make_schedule(config), gan.latent_dim, gan.num_classes
  )


def _with_hyperparameters(
  state: state_lib.TrainState, config: Any
) -> state_lib.TrainState:
  """Sets what the program takes as arrays to what the config says."""

  def part(network: state_lib.NetworkState, own: Any) -> Any:
    opt_state: Any = network.opt_state
    given = {'learning_rate': own.learning_rate, **own.optimizer_kwargs}
    values = {k: np.asarray(x, np.float32) for k, x in given.items()}
    return network.replace(opt_state=opt_state._replace(hyperparams=values))

  return state.replace(
    generator=part(state.generator, config.generator),
    discriminator=part(state.discriminator, config.discriminator),
    hyperparameters=state_lib.Hyperparameters(
      np.asarray(config.loss.penalty_weight, np.float32),
      np.asarray(config.ema.decay, np.float32),
    ),
  )


def make_program(
  config: Any, gan: Gan, layout: devices.Layout | None = None
) -> devices.Program:
  """The pmapped step.

  Args:
    config: resolved; what the state holds of it does not matter here.
    gan: its networks, for the same layout.
    layout: of the members that train together; one alone if None.
  """
  layout = layout or devices.make_layout(1)
  step = step_lib.make_step(
    gan.generator,
    gan.discriminator,
    **_losses(config, gan),
    schedule=make_schedule(config),
    rate_at=make_decay(config.learning_rate_decay, config.steps),
    axis_name=layout.axis_name,
    axis_groups=layout.axis_groups,
  )
  return devices.Program(step, layout)


def _losses(config: Any, gan: Gan) -> dict[str, Any]:
  return {
    'loss': losses.LOSSES[config.loss.name],
    'latent_dim': gan.latent_dim,
    'num_classes': gan.num_classes,
    'penalty': losses.PENALTIES.get(config.loss.penalty),
    'penalty_fraction': config.loss.penalty_fraction,
  }


def make_diagnosis(config: Any, gan: Gan) -> diagnosis.Diagnose:
  """What looks at a state of networks that are on one device."""
  return diagnosis.make_diagnose(
    gan.generator, gan.discriminator, **_losses(config, gan)
  )


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
  config: Any, gan: Gan, network: Quantized
) -> Mapping[str, Any]:
  """What `artifacts.save_generator` needs of what a `Sampler` draws from."""
  return {
    'model': config.model.name,
    'model_kwargs': gan.generator_kwargs,
    'variables': network.variables,
    'ranges': network.ranges,
    'precision': network.precision,
    'bits': network.bits,
    'learned': network.learned,
  }
