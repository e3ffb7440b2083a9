"""AdaRound: rounds each weight up or down by the effect on its layer's output.

Nagel et al., https://arxiv.org/abs/2004.10568.
"""

from typing import Any, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

from qgan_jax.post_training.watch import batches, call_order, watch
from qgan_jax.post_training.weights import with_values
from qgan_jax.precision import Quantized, width
from qgan_jax.quantizers import Quantizer

Array = jax.Array
PyTree = Any
Params = dict[str, Array]
# Of the rectified sigmoid, eq. 23: it reaches 0 and 1 at finite values.
_ZETA, _GAMMA = 1.1, -0.1
_REGULARIZATION = 0.01
_WARM_UP = 0.2  # Share of the steps without regularization.
_BETA = 20.0, 2.0  # First and last, eq. 24.


def _rectified(v: Array) -> Array:
  """h(V) of eq. 23, in [0, 1]."""
  return jnp.clip(jax.nn.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA, 0, 1)


def adaround(
  network: Quantized,
  *args: Any,
  steps: int = 1000,
  learning_rate: float = 1e-2,
  batch_size: int = 64,
) -> Quantized:
  """Rounds every weight up or down so that its layer's output changes least.

  Layers are rounded one after another, in the order in which they are called.
  For each, Adam minimises ‖f(x, W) − f(x̂, Ŵ)‖² + λ Σ (1 − |2h − 1|^β) over h,
  where x̂ are the layer's inputs after all earlier layers have been rounded.
  This is eq. 25 without the activation function, which here comes after a
  normalization.

  Args:
    network: with the scales of its weights in `learned` (see `fit_weights`).
    *args: calibration inputs [N, …].
    steps: for each layer. The paper uses 10,000.
    learning_rate: of Adam.
    batch_size: of a step.

  Returns:
    The network with weights that are multiples of their scales; quantizing them
    again does not change them.

  Raises:
    ValueError: a layer's quantizer has no scale in `learned`.
  """
  run = network.with_float_activations()
  parts = batches(args, batch_size)
  tree = network.variables['params']
  flat = traverse_util.flatten_dict(tree, sep='/')
  for path in call_order(run, parts[0]):
    name = f'{path}/kernel' if path else 'kernel'
    spec = network.precision.spec('weights', path)
    if spec is None or name not in flat:
      continue
    params = network.learned.get('weights', {}).get(path)
    if params is None:
      raise ValueError(
        f'{spec.name} of {path!r} has no scale that stays: AdaRound is for '
        'quantizers with a learned one, such as lsq'
      )
    bits = jnp.float32(width(network.bits.weights, path))
    params = {**spec.quantizer.fit(flat[name], bits), **params}
    grid = _Grid(spec.quantizer, params, bits)
    # Those before it are on their grids, those after it do not matter.
    weights = run.weights(with_values(tree, flat))
    flat[name] = _round_layer(
      run, path, name, weights, flat[name], grid, parts, steps, learning_rate
    )
  params = with_values(tree, flat)
  return network.replace(variables={**network.variables, 'params': params})


class _Grid(NamedTuple):
  """A quantizer with its parameters and bits."""

  quantizer: Quantizer
  params: Params
  bits: Array

  def floor(self, w: Array) -> tuple[Array, Array]:
    """The code below each weight, and how far above it it is, in [0, 1].

    A weight outside the range has the outermost code, which clipping keeps.
    """
    codes = self.quantizer.encode(w, self.params, self.bits)
    nearest = self.value(codes)
    codes = codes - (nearest > w)
    low = self.value(codes)
    return codes, jnp.clip((w - low) / (self.value(codes + 1) - low), 0, 1)

  def value(self, codes: Array) -> Array:
    """The weights of codes, whole or between."""
    return self.quantizer.decode(codes, self.params, self.bits)

  def clip(self, codes: Array) -> Array:
    """The codes that there are."""
    lowest, highest = (
      self.quantizer.encode(jnp.full(codes.shape, x), self.params, self.bits)
      for x in (-1e6, 1e6)
    )
    return jnp.clip(codes, lowest, highest)


def _round_layer(
  run: Quantized,
  path: str,
  name: str,
  weights: PyTree,
  w: Array,
  grid: _Grid,
  parts: list[tuple[Any, ...]],
  steps: int,
  learning_rate: float,
) -> Array:
  """One layer's weights, each on the level above or below it."""
  rest = traverse_util.flatten_dict(weights, sep='/')
  floor, fraction = grid.floor(w)
  float_network = run.in_float()
  original = run.variables['params']

  def outputs(
    network: Quantized, params: PyTree, args: tuple[Any, ...]
  ) -> list[Array]:
    """Of the layer's calls."""
    return [y for _, y in watch(lambda: network.run(params, *args))[path]]

  def soft(v: Array) -> Array:
    return grid.value(grid.clip(floor + _rectified(v)))

  def loss(v: Array, target: PyTree, args: Any, progress: Array) -> Array:
    params = with_values(weights, {**rest, name: soft(v)})
    error = sum(
      jnp.sum(jnp.mean(jnp.square(y - wanted), 0))
      for y, wanted in zip(outputs(run, params, args), target, strict=True)
    )
    beta = _BETA[1] + 0.5 * (_BETA[0] - _BETA[1]) * (
      1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1))
    )
    undecided = 1 - jnp.abs(2 * _rectified(v) - 1) ** beta
    weight = jnp.where(progress >= 0, _REGULARIZATION, 0.0)
    return error + weight * jnp.sum(undecided)

  optimizer = optax.adam(learning_rate)

  @jax.jit
  def update(v, opt_state, target, args, progress):
    grads = jax.grad(loss)(v, target, args, progress)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(v, updates), opt_state

  teacher = jax.jit(lambda args: outputs(float_network, original, args))
  targets = [teacher(part) for part in parts]
  start = (jnp.clip(fraction, 0.01, 0.99) - _GAMMA) / (_ZETA - _GAMMA)
  v = jnp.log(start / (1 - start))
  opt_state = optimizer.init(v)
  for i in range(steps):
    progress = jnp.float32((i / steps - _WARM_UP) / (1 - _WARM_UP))
    part = i % len(parts)
    v, opt_state = update(v, opt_state, targets[part], parts[part], progress)
  return soft(jnp.where(_rectified(v) >= 0.5, jnp.inf, -jnp.inf))
