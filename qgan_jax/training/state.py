"""The state of a run: all that its next steps depend on."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from flax import struct
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qgan_jax.errors import UserError
from qgan_jax.precision import arguments_for, Bits, Learned, Precision

Array = jax.Array
PyTree = Any


class Hyperparameters(NamedTuple):
  """Hyperparameters as arrays, so that one compiled step serves all values.

  So are the bit widths, in each network's state, and the learning rates and
  other arguments of optimizers, in the optimizers' states.

  Attributes:
    variant: the numbers that the variant's losses read, float32, by name.
    ema_decay: of the moving averages, float32; a step takes no more than
      (1 + step) / (10 + step), so that the initial weights are soon forgotten.
  """

  variant: dict[str, Array | np.ndarray]
  ema_decay: Array | np.ndarray


class Trained(NamedTuple):
  """The parameters of a network that gradient descent changes.

  Attributes:
    params: float32 master weights.
    learned: parameters of its quantizers; {} where none is learned.
  """

  params: PyTree
  learned: Learned


class NetworkState(struct.PyTreeNode):
  """One network's part of the state.

  Attributes:
    params: float32 master weights.
    stats: the module's other variables, by collection (BatchNorm's statistics,
      spectral norm's vectors); {} where it has none.
    ranges: of the activations, by module path.
    bits: bit widths, arrays: one compiled step serves all of them.
    opt_state: state of the optimizer of `params`.
    learned: learned parameters of its quantizers; {} where there are none.
    learned_opt_state: state of the optimizer of `learned`.
  """

  params: PyTree
  stats: dict[str, PyTree]
  ranges: dict[str, Array]
  bits: Bits
  opt_state: optax.OptState
  learned: Learned = struct.field(default_factory=dict)
  learned_opt_state: optax.OptState = ()

  @property
  def trained(self) -> Trained:
    """What a loss is differentiated with respect to."""
    return Trained(self.params, self.learned)


class TrainState(struct.PyTreeNode):
  """The state of a run.

  Attributes:
    step: steps taken, int32.
    key: raw PRNG key of the run; a step's randomness is folded from it.
    halted: whether a value that is not finite has stopped the run; from then
      on the state stays as it was before that step.
    networks: of each network, its part.
    average: of each network that has moving averages, {'params': …, 'stats': …,
      'learned': …}: a learned scale is averaged like the weights it belongs to.
    hyperparameters: the same at every step.
    adapted: numbers of the variant that a step changes, float32, by name.
  """

  step: Array
  key: Array
  halted: Array
  networks: dict[str, NetworkState]
  average: dict[str, dict[str, PyTree]]
  hyperparameters: Hyperparameters
  adapted: dict[str, Array] = struct.field(default_factory=dict)

  def averaged(self, name: str) -> NetworkState:
    """A network's part, with its moving averages where it has them."""
    return self.networks[name].replace(**self.average.get(name, {}))


def init_network(
  module: nn.Module,
  precision: Precision,
  optimizer: optax.GradientTransformation,
  bits: Bits,
  key: Array,
  *example: Array | None,
  quantizer_optimizer: optax.GradientTransformation | None = None,
  variables: PyTree = None,
  fitted_to: Bits | None = None,
) -> NetworkState:
  """The state of a network before its first step.

  Args:
    module: the network.
    precision: how it is quantized.
    optimizer: of its parameters.
    bits: its bit widths.
    key: for the parameters.
    *example: arguments of the module, to which the activations' ranges and the
      learned quantizers are fitted.
    quantizer_optimizer: of learned quantizers' parameters.
    variables: to start from; None for the module's own initialization, with
      which BatchNorm normalizes the example by its own statistics, as in
      training.
    fitted_to: bits that learned quantizers are fitted to, and ranges of least
      squared error; None for `bits`.

  Returns:
    Its state, on the default device.

  Raises:
    UserError: the module has parameters narrower than float32.
  """
  args, kwargs = arguments_for(module, example, {})
  training: dict[str, Any] = {}
  if not variables:
    # Names of axes for a mesh of devices, in a box around a parameter, are not
    # used here.
    variables = nn.meta.unbox(module.init(key, *args, **kwargs))
    if 'batch_stats' in variables:
      moved = [name for name in variables if name != 'params']
      training = {'train': True, 'mutable': moved, 'rngs': {'params': key}}
  variables = dict(variables)
  for x in jax.tree.leaves(variables['params']):
    if x.dtype in (jnp.bfloat16, jnp.float16):
      raise UserError(
        f'{type(module).__name__} has parameters of {x.dtype}, to which small '
        'updates add nothing: train float32 ones, without param_dtype (dtype '
        'alone makes the arithmetic narrower)'
      )
  ranges, learned = precision.init(
    module, variables, fitted_to or bits, *example, **training
  )
  params = variables.pop('params')
  return NetworkState(
    params=params,
    stats=variables,
    ranges=ranges,
    bits=bits,
    opt_state=optimizer.init(params),
    learned=learned,
    learned_opt_state=(
      quantizer_optimizer.init(learned)
      if learned and quantizer_optimizer
      else ()
    ),
  )


def average_of(network: NetworkState) -> dict[str, PyTree]:
  """The part of a network's state that its moving average follows."""
  return {
    'params': network.params,
    'stats': network.stats,
    'learned': network.learned,
  }


def init_state(
  key: Array,
  networks: dict[str, NetworkState],
  *,
  averaged: Collection[str] = (),
  hyperparameters: Mapping[str, float] | None = None,
  adapted: Mapping[str, float] | None = None,
  ema_decay: float = 0.999,
) -> TrainState:
  """The state before the first step.

  Args:
    key: raw PRNG key, uint32 [2].
    networks: of each network, its part.
    averaged: names of those that have moving averages.
    hyperparameters: of the variant.
    adapted: numbers that the variant adapts.
    ema_decay: of the moving averages.

  Returns:
    The state; its moving averages are copies, since a step donates its input.
  """

  def arrays(numbers: Mapping[str, float] | None) -> dict[str, Any]:
    return {name: jnp.float32(x) for name, x in (numbers or {}).items()}

  average = {name: average_of(networks[name]) for name in averaged}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    key=key,
    halted=jnp.zeros((), bool),
    networks=networks,
    average=jax.tree.map(jnp.copy, average),
    hyperparameters=Hyperparameters(
      arrays(hyperparameters), jnp.float32(ema_decay)
    ),
    adapted=arrays(adapted),
  )


def fill(like: PyTree, source: PyTree) -> PyTree:
  """`like`, with its leaves replaced by those of `source` at the same paths.

  The state of a program for quantized networks has leaves that a run in float
  lacks, such as scales.
  """
  found = dict(jax.tree.leaves_with_path(source))
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: found.get(path, leaf), like
  )
