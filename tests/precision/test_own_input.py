"""Which layers read a network's own input, and how many bits it keeps."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.precision import Bits, make_precision
from qgan_jax.precision.layers import find_layers
from qgan_jax.precision.own_input import trace_inputs

X = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
LABELS = jnp.array([0, 1])


class Shortcut(nn.Module):
  """A residual block whose shortcut pools the image that it is given."""

  @nn.compact
  def __call__(self, x, labels=None):
    h = nn.Conv(4, (3, 3), name='first')(x)
    h = nn.Conv(4, (3, 3), name='second')(nn.relu(h))
    h = nn.avg_pool(h, (2, 2), (2, 2))
    short = nn.Conv(4, (1, 1), name='short')(nn.avg_pool(x, (2, 2), (2, 2)))
    return nn.Dense(1, name='last')((h + short).reshape(len(x), -1))


class Labelled(nn.Module):
  """Labels join the input before a layer, and features after one."""

  @nn.compact
  def __call__(self, x, labels):
    coded = jax.nn.one_hot(labels, 3)
    h = nn.Dense(4, name='joined')(
      jnp.concatenate([x.reshape(len(x), -1), coded], -1)
    )
    scale = nn.Dense(4, name='of_label')(coded)
    return nn.Dense(1, name='scaled')(jax.nn.relu(h) * scale)


class Late(nn.Module):
  """The image is read again beside features, and by a layer called twice."""

  @nn.compact
  def __call__(self, x, labels=None):
    twice = nn.Dense(3, name='twice')
    h = twice(twice(x))
    return nn.Dense(1, name='beside')(jnp.concatenate([x, h], -1))


class Lifted(nn.Module):
  """Layers inside of transformations."""

  @nn.compact
  def __call__(self, x, labels=None):
    h = nn.remat(nn.Dense)(3, name='remat')(x * 2)
    h = nn.jit(nn.Dense)(3, name='jit')(h)

    def body(module, carry, _):
      return nn.Dense(3, name='loop')(carry), None

    scan = nn.scan(
      body,
      variable_broadcast='params',
      split_rngs={'params': False},
      length=2,
    )
    h, _ = scan(self, x, None)
    return h


@pytest.mark.parametrize(
  ('module', 'expected'),
  [
    (Shortcut(), {'first', 'short'}),
    (Labelled(), {'joined', 'of_label'}),
    (Late(), set()),
    (Lifted(), {'remat'}),
  ],
)
def test_layers_that_get_what_none_has_computed(module, expected):
  found = find_layers(module, X, LABELS)
  assert {layer.path for layer in found if layer.reads_input} == expected


def test_branches_are_followed():
  def run(variables, x):
    dense = nn.Dense(3)

    def same(x):
      return x

    h = jax.lax.cond(x.sum() > 0, same, lambda x: 2 * x, x)
    y = dense.apply(variables, h)
    h = jax.lax.cond(x.sum() > 0, same, lambda x: x + y, x)
    return nn.Dense(3, name='after').apply(variables, h)

  variables = nn.Dense(3).init(jax.random.key(0), X)
  _, found = trace_inputs(run, variables, X)
  assert not found  # Both are called '', and the second reads no input alone.


def test_a_shortcut_keeps_the_inputs_bits_and_its_grid():
  """Levels of what the shortcut multiplies, counted at its output."""
  x = jnp.linspace(-1, 1, 256).reshape(1, 16, 16, 1)

  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      ones = {'kernel_init': nn.initializers.ones, 'use_bias': False}
      h = nn.Conv(1, (1, 1), name='first', **ones)(x)
      inner = nn.Conv(1, (1, 1), name='inner', **ones)(h)
      return inner, nn.Conv(1, (1, 1), name='short', **ones)(x)

  precision = make_precision(
    weights='uniform', activations='affine', per_channel=True,
    ranges='dynamic', momentum=0.9, input_bits=8,
  )  # fmt: skip
  variables = Net().init(jax.random.key(0), x)
  bits = Bits(jnp.float32(32), jnp.float32(2))
  found = find_layers(Net(), x)
  own = tuple(layer.path for layer in found if layer.reads_input)
  calls = []

  class Counted(Net):
    def __call__(self, x):
      calls.append(1)
      return super().__call__(x)

  precision = dataclasses.replace(precision, input_layers=own)
  (inner, short), _ = precision.apply(Counted(), variables, {}, bits, x)
  assert len(np.unique(inner)) <= 4
  assert len(np.unique(short)) > 150
  assert len(calls) == 1  # It is not traced to find these layers.
  # Where nobody says which they are, it is the first layer.
  precision = dataclasses.replace(precision, input_layers=None)
  (_, short), _ = precision.apply(Net(), variables, {}, bits, x)
  assert len(np.unique(short)) <= 4
