"""Builds the objects of a run from a resolved config and its images.

A config is unpacked here; the code that is called takes explicit arguments.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax import data, metrics, variants
from qgan_jax.backend import backend
from qgan_jax.config import NETWORKS, periods
from qgan_jax.config.kinds import size_of
from qgan_jax.data import ImageDataset
from qgan_jax.errors import UserError
from qgan_jax.precision import Bits
from qgan_jax.precision.arguments import arguments_for
from qgan_jax.precision.compile import compile_quickly
from qgan_jax.precision.layers import find_layers, Layer
from qgan_jax.precision.schedule import Schedule
from qgan_jax.precision.table import Choice
from qgan_jax.runs import inputs, pictures
from qgan_jax.runs.folder import read_run
from qgan_jax.runs.precision import make_schedule, plan_precision
from qgan_jax.runs.variants import make_variant, refuse_given
from qgan_jax.training import devices, diagnosis, machine
from qgan_jax.training import state as state_lib
from qgan_jax.training import step as step_lib
from qgan_jax.training.measuring import Measure
from qgan_jax.training.optimizers import (
  make_decay,
  make_optimizer,
  make_quantizer_optimizer,
)
from qgan_jax.training.refit import Refit
from qgan_jax.training.sampling import Sampler
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import Variant

PyTree = Any
# Decoded pictures take no more than one part of so many: while they are read
# there are two copies, and other runs may be beside this one.
_SHARE_OF_MEMORY = 4
_BYTES_ON_DEVICES = 2**30  # Of a data set, at most.
_STEPS_PER_CALL = 20  # At most, if the config does not say it.
_EXAMPLES = 64  # Images that quantizers are fitted to before the first step.


def load_dataset(config: Any, *, standin: bool) -> ImageDataset:
  """The data set of a config.

  Args:
    config: resolved.
    standin: whether digits may stand in, if the config allows it too.

  Raises:
    UserError: it is not available, or has no labels although the config asks
      for them.
  """
  refuse_given(config)
  memory = machine.memory()
  dataset = data.load(
    config.data.source,
    data_dir=config.data.dir,
    image_size=size_of(config.data.image_size),
    channels=config.data.channels,
    standin=standin and config.data.standin,
    group=config.data.group,
    fit=config.data.fit,
    pixel_art=config.data.pixel_art,
    pairs=config.data.pairs,
    domains=config.data.domains,
    memory=memory and memory // _SHARE_OF_MEMORY,
  )
  if config.data.conditional and not dataset.num_classes:
    raise UserError(
      f'data.conditional=True, but {dataset.name} has no labels: put the '
      'images of each class into a sub-folder, or set it to False'
    )
  return dataset


def load_learned(workdir: Path) -> tuple[Any, ImageDataset]:
  """The config of a run, and the data set that it has learned.

  Raises:
    UserError: it is not the folder of a run, or its data set is not available
      or has changed.
  """
  config, name = read_run(workdir)
  if config.data.dir is not None:
    try:
      data.check(config.data.source, data_dir=config.data.dir)
    except UserError as error:
      raise UserError(
        f'{error} {workdir} has learned from it: if it has moved, start the '
        "run's own command again with its new place as dir=… and with "
        f'--workdir={workdir}, and that is noted.'
      ) from None
  inputs.check([config])
  dataset = load_dataset(config, standin=True)
  pictures.check(workdir, name, dataset)
  return config, dataset


def make_extractor(config: Any, dataset: ImageDataset) -> metrics.Extractor:
  """The extractor of the features that scores compare."""
  if inputs.uses_inception(config):
    return metrics.inception_extractor(config.scores.inception_weights)
  return metrics.classifier_extractor(
    dataset.name,
    dataset.train_targets,
    dataset.train_labels,
    dataset.test_targets,
    dataset.test_labels,
    dataset.num_classes,
  )


def section(config: Any, variant: Variant, name: str) -> Any:
  """The part of a config that is about one network of a variant.

  This is the network's own part, if there is one. Otherwise it is the
  generator's for the delivered network and for networks made of a family's
  generator, and the discriminator's for all others.
  """
  if name in NETWORKS:
    return config[name]
  generates = name == variant.delivered or name in variants.GENERATORS
  return config['generator' if generates else 'discriminator']


@dataclasses.dataclass(frozen=True)
class Setup:
  """Everything that a run consists of, except its state and its folder.

  Attributes:
    config: resolved.
    dataset: its images.
    layout: of the runs that train together.
    variant: networks, losses, and the order of updates.
    networks: its networks, by name, with their quantizers and optimizers.
    bits: of each network, bit widths.
    layers: of each network, the layers that rules can match.
    table: quantizer and bits of every layer.
    schedule: when networks are quantized and pruned.
  """

  config: Any
  dataset: ImageDataset
  layout: devices.Layout
  variant: Variant
  networks: Mapping[str, Trainable]
  bits: Mapping[str, Bits]
  layers: Mapping[str, tuple[Layer, ...]]
  table: list[Choice]
  schedule: Schedule

  @property
  def is_quantized(self) -> bool:
    """Whether any tensor is quantized."""
    return any(choice.quantizer for choice in self.table)

  @property
  def static(self) -> Any:
    """Precisions: the only constants that differ between a program's trials."""
    return tuple(network.precision for network in self.networks.values())

  @property
  def labels(self) -> np.ndarray | None:
    """Labels of the training images; None for an unconditional variant."""
    conditional = self.config.data.conditional
    return self.dataset.train_labels if conditional else None

  def batches(self, layout: devices.Layout) -> data.Batches:
    """The batches of this process.

    Args:
      layout: of all runs that train together with this one.
    """
    return data.Batches(
      self.dataset.train_images,
      self.labels,
      seed=self.config.seed,
      batch_size=self.config.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      process_devices=layout.local_group,
    )

  def init_states(
    self, members: Sequence['Setup'], starts: Sequence[Any] = ()
  ) -> list[state_lib.TrainState]:
    """The states of runs before the first step, on the host, from their seeds.

    Args:
      members: the runs that train together with this one's program.
      starts: for each, variables by network to start from, or None.
    """
    init = compile_quickly(self._init)
    return [
      member.with_hyperparameters(
        jax.device_get(
          init(jax.random.PRNGKey(member.config.seed), member.bits, start)
        )
      )
      for member, start in itertools.zip_longest(members, starts)
    ]

  def init_state(self, start: Any = None) -> state_lib.TrainState:
    """The state of this run before the first step."""
    return self.init_states([self], [start])[0]

  def state_shapes(self) -> state_lib.TrainState:
    """The state's structure, `jax.ShapeDtypeStruct`s; nothing is compiled."""
    return jax.eval_shape(self._init, jax.random.PRNGKey(0), self.bits)

  def _init(
    self, key: jax.Array, bits: Mapping[str, Bits], start: Any = None
  ) -> state_lib.TrainState:
    """(key, bits, variables to start from) → state; pure."""
    *keys, examples_key, run_key = jax.random.split(key, len(self.networks) + 2)
    inputs = self.examples(examples_key)
    networks = {
      name: state_lib.init_network(
        network.module,
        network.precision,
        network.optimizer,
        bits[name],
        own_key,
        *inputs[name],
        quantizer_optimizer=network.quantizer_optimizer,
        variables=start[name] if start else None,
        fitted_to=self.schedule.fitted_to(bits[name], 0),
      )
      for (name, network), own_key in zip(
        self.networks.items(), keys, strict=True
      )
    }
    return state_lib.init_state(
      run_key,
      networks,
      averaged=self.variant.averaged,
      hyperparameters=self.variant.hyperparameters,
      adapted=self.variant.adapted,
    )

  def examples(self, key: jax.Array) -> Mapping[str, tuple[Any, ...]]:
    """Example arguments of each network, to which its quantizers are fitted."""
    images = self.dataset.train_images[:_EXAMPLES]
    batch = {'images': step_lib.to_float(jnp.asarray(images))}
    if self.labels is not None:
      # Every class, even where the first images lack some.
      batch['labels'] = jnp.arange(len(images)) % self.dataset.num_classes
    return self.variant.examples(batch, key)

  def with_hyperparameters(
    self, state: state_lib.TrainState
  ) -> state_lib.TrainState:
    """Sets the hyperparameters in a state to this run's."""

    def part(name: str) -> state_lib.NetworkState:
      own = section(self.config, self.variant, name)
      network = state.networks[name]
      opt_state: Any = network.opt_state
      given = {'learning_rate': own.learning_rate, **own.optimizer_kwargs}
      values = {k: np.asarray(x, np.float32) for k, x in given.items()}
      return network.replace(opt_state=opt_state._replace(hyperparams=values))

    return state.replace(
      networks={name: part(name) for name in self.networks},
      hyperparameters=state_lib.Hyperparameters(
        {
          name: np.asarray(value, np.float32)
          for name, value in self.variant.hyperparameters.items()
        },
        np.asarray(self.config.ema.decay, np.float32),
      ),
    )

  def program(self, on: Sequence[jax.Device] | None = None) -> devices.Program:
    """The pmapped step, which reads hyperparameters from the state.

    Args:
      on: the devices that the layout is for, if they are not those of this
        machine.
    """
    step = step_lib.make_step(
      self.variant,
      self.networks,
      schedule=self.schedule,
      rate_at=make_decay(self.config.learning_rate_decay, self.config.steps),
      replicas=self.layout.replicas,
    )
    return devices.Program(step, self.layout, on, self._on_devices)

  @property
  def steps_per_call(self) -> int:
    """Steps of a call: those of the config, or as many as suit the backend."""
    if self.config.steps_per_call is not None:
      return self.config.steps_per_call
    if backend() == 'cpu':  # Convolutions in loops are several times slower.
      return 1
    common = math.gcd(*periods(self.config).values())
    return max(n for n in range(1, _STEPS_PER_CALL + 1) if not common % n)

  @property
  def _on_devices(self) -> dict[str, np.ndarray] | None:
    """The data that lie on the devices; None if batches are sent.

    So they are to calls of one step: XLA would copy the whole set into a TPU's
    faster memory for each.
    """
    images = self.dataset.train_images
    if self.steps_per_call == 1 or images.nbytes > _BYTES_ON_DEVICES:
      return None
    labels = {} if self.labels is None else {'labels': self.labels}
    return {'images': images, **labels}

  def refit(self) -> Refit:
    """The function that fits learned quantizers anew when the bits change."""
    inputs = self.examples(jax.random.PRNGKey(0))
    return Refit(self.networks, self.schedule, inputs)

  def labels_to_draw(self, num: int) -> np.ndarray | None:
    """Classes of images for scores: in the proportions of the training images.

    Args:
      num: of the images.

    Returns:
      int32 [num]; None for networks without classes.
    """
    if self.labels is None:
      return None
    return data.labels_in_proportion(self.labels, num)

  def sampler(self) -> Sampler:
    """The sampler that draws from the states of a run on one device."""
    name = self.variant.delivered
    sampler = Sampler(
      name, self.networks[name], self.schedule, self.variant.inputs
    )
    if not self.variant.input_channels:
      return sampler
    return dataclasses.replace(
      sampler,
      seen=self.dataset.train_inputs,
      held_out=self.dataset.test_inputs,
    )

  def measure(self, state: state_lib.TrainState, *, seed: int = 0) -> Any:
    """The variant's numbers for held-out images, by name, such as an ELBO."""
    seen, held_out = (
      (images, None if self.labels is None else labels)
      for images, labels in (
        (self.dataset.train_images, self.dataset.train_labels),
        (self.dataset.test_images, self.dataset.test_labels),
      )
    )
    measure = Measure(self.variant, self.networks, self.schedule, seen)
    return measure(state, held_out, seed=seed)

  def diagnosis(self) -> diagnosis.Diagnose:
    """The function that measures quantization in a state, on one device."""
    decay = make_decay(self.config.learning_rate_decay, self.config.steps)
    return diagnosis.make_diagnose(
      self.variant,
      self.networks,
      # Of the step that led to the state: the next one may have no rate left.
      rate_at=lambda step: decay(jnp.maximum(step - 1, 0)),
    )


def set_up(
  config: Any,
  dataset: ImageDataset,
  layout: devices.Layout = devices.ALONE,
  variant: Variant | None = None,
) -> Setup:
  """Builds everything that a run consists of.

  Args:
    config: resolved.
    dataset: its images.
    layout: of the runs that train together; by default one on one device.
    variant: networks, losses, and the order of updates; None for the config's.

  Raises:
    UserError: a precision rule matches nothing, or a layer that does not
      support it; or the delivered network draws images of another shape than
      the data's.
  """
  if variant is None:
    variant = make_variant(config, dataset)
  prefixes = [variant.prefixes.get(name) for name in variant.modules]
  if None in prefixes or len(set(prefixes)) < len(prefixes):
    raise UserError(
      f'prefixes={dict(variant.prefixes)}: each network of a variant needs one '
      'of its own, by which its metrics are called'
    )
  size = dataset.train_images.shape[1:]
  shapes = {'images': jax.ShapeDtypeStruct((1, *size), jnp.float32)}
  if config.data.conditional:
    shapes['labels'] = jax.ShapeDtypeStruct((1,), jnp.int32)
  inputs = jax.eval_shape(
    variant.examples, shapes, jax.ShapeDtypeStruct((2,), jnp.uint32)
  )
  layers = {
    name: find_layers(module, *inputs[name])
    for name, module in variant.modules.items()
  }
  outputs = {
    name: _output(name, module, inputs[name])
    for name, module in variant.modules.items()
  }
  _check_drawn(variant, outputs[variant.delivered], dataset)
  sections = {name: section(config, variant, name) for name in variant.modules}
  precisions, bits, table = plan_precision(
    config, sections, layers, variant.see_images
  )
  networks = {
    name: Trainable(
      module,
      precisions[name],
      make_optimizer(own.optimizer, own.learning_rate, **own.optimizer_kwargs),
      make_quantizer_optimizer(config.precision.learning_rate),
    )
    for (name, module), own in zip(
      variant.modules.items(), sections.values(), strict=True
    )
  }
  return Setup(
    config=config,
    dataset=dataset,
    layout=layout,
    variant=variant,
    networks=networks,
    bits=jax.tree.map(np.float32, bits),
    layers=layers,
    table=table,
    schedule=make_schedule(config),
  )


def _output(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> Any:
  """What a network returns outside of training, as shapes.

  Raises:
    UserError: it draws random numbers there.
  """
  example, kwargs = arguments_for(module, inputs, {})

  def call(*example: Any) -> Any:
    variables = module.init(jax.random.PRNGKey(0), *example, **kwargs)
    return module.apply(variables, *example, **kwargs)

  try:
    return jax.eval_shape(call, *example)
  except flax.errors.InvalidRngError:
    raise UserError(
      f'the {name} draws random numbers where train is False: outside of '
      'training its output has to depend on its inputs alone'
    ) from None


def _check_drawn(variant: Variant, drawn: Any, dataset: ImageDataset) -> None:
  """Refuses a network of a person's own whose images have another shape."""
  if not isinstance(drawn, jax.ShapeDtypeStruct):
    raise UserError(
      f'the {variant.delivered} returns a {type(drawn).__name__}: let it '
      'return the images alone, one array'
    )
  found, wanted = drawn.shape[1:], dataset.train_targets.shape[1:]
  if wanted[-1] not in (1, 3, 4):
    raise UserError(
      f'{dataset.name} has images of {wanted[-1]} channels to draw, and a '
      'picture has 1 (grey), 3 (RGB) or 4 (RGBA)'
    )
  if found != wanted:
    shapes = ['×'.join(map(str, shape)) for shape in (found, wanted)]
    raise UserError(
      f'the {variant.delivered} draws images of {shapes[0]}, and those of '
      f'{dataset.name} are {shapes[1]} (height × width × channels): give it '
      'data of its own shape, or make it draw theirs'
    )
