"""CycleGAN's generator: the published layers, what they compute, and sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax import models

KEY = jax.random.PRNGKey(0)


def published(blocks):
  """Its appendix 7.2, as (side of the kernel, channels in and out, stride)."""
  layers, channels = [], 3
  names = ['c7s1-64', 'd128', 'd256', *['R256'] * blocks, 'u128', 'u64']
  for name in (*names, 'c7s1-3'):
    kind, width = name[0], int(name.split('-')[-1].lstrip('dRu'))
    size, stride = {'c': (7, 1), 'd': (3, 2), 'R': (3, 1), 'u': (3, 0.5)}[kind]
    for _ in range(2 if kind == 'R' else 1):
      layers.append((size, channels, width, stride))
      channels = width
  return layers


# The authors' program prints the second, for norms with scales of their own.
@pytest.mark.parametrize(
  ('blocks', 'parameters'), [(6, 7_845_123), (9, 11_388_675)]
)
def test_the_layers_are_the_published_ones(blocks, parameters):
  g = models.make_generator('translator', channels=64, blocks=blocks)
  x = jnp.zeros((1, 64, 64, 3))
  layers, sides = [], [64]

  def record(next_fun, args, kwargs, context):
    y = next_fun(*args, **kwargs)
    if isinstance(context.module, nn.Conv):
      (size, _), sizes = context.module.kernel_size, (*args, y)
      given, made = (value.shape[-1] for value in sizes)
      layers.append((size, given, made, sides[-1] / y.shape[1]))
      sides.append(y.shape[1])
    return y

  with nn.intercept_methods(record):
    variables = jax.eval_shape(g.init, KEY, x)
  expected = published(blocks)
  assert layers == expected
  convs = sum(k * k * i * o + o for k, i, o, _ in expected)
  # A scale and a shift of each map but the last.
  norms = sum(2 * o for _, _, o, _ in expected[:-1])
  count = sum(x.size for x in jax.tree.leaves(variables))
  assert count == convs + norms == parameters


def test_it_computes_what_the_paper_says():
  g = models.make_generator('translator', channels=4, blocks=2)
  x = jax.random.normal(KEY, (2, 9, 14, 3))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda w: jnp.float32(0.3 * rng.normal(size=w.shape)),
    jax.eval_shape(g.init, KEY, x)['params'],
  )

  def conv(x, layer, stride=1):
    kernel = layer['kernel']
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y + layer['bias']

  def norm(x, layer):
    x = (x - x.mean((1, 2), keepdims=True)) / jnp.sqrt(
      x.var((1, 2), keepdims=True) + 1e-5
    )
    return x * layer['scale'] + layer['bias']

  norms = [params[f'InstanceNorm_{i}'] for i in range(5)]
  h = nn.relu(norm(conv(x, params['stem']), norms[0]))
  for i in range(2):
    h = nn.relu(norm(conv(h, params[f'down{i}'], 2), norms[1 + i]))
  assert h.shape == (2, 3, 4, 16)
  for name in ('block0', 'block1'):
    p = params[name]
    y = nn.relu(norm(conv(h, p['conv0']), p['InstanceNorm_0']))
    h = h + norm(conv(y, p['conv1']), p['InstanceNorm_1'])
  for i, rows, columns in ((1, 5, 7), (0, 9, 14)):
    # Each pixel is that of half of its row and column.
    h = h[:, np.arange(rows) // 2][:, :, np.arange(columns) // 2]
    h = nn.relu(norm(conv(h, params[f'up{i}']), norms[4 - i]))
  expected = jnp.tanh(conv(h, params['image']))
  # Most of them neither −1 nor 1.
  assert (np.abs(expected) < 0.99).mean() > 0.5
  np.testing.assert_allclose(
    g.apply({'params': params}, x), expected, atol=1e-4
  )


@pytest.mark.parametrize(
  ('size', 'channels', 'halvings'),
  [
    ((16, 16), (1, 3), 2),
    ((17, 50), (2, 4), 2),
    ((256, 31), (4, 1), 2),
    ((9, 3), (3, 2), 2),
    ((8, 7), (3, 3), 1),
    ((4, 1), (1, 1), 0),
  ],
)
@pytest.mark.parametrize('norm', ['instance', 'group', 'batch', 'none'])
def test_any_size_and_number_of_channels(size, channels, halvings, norm):
  given, made = channels
  g = models.make_generator(
    'translator', channels=4, norm=norm, image_channels=made
  )
  d = models.make_discriminator('translator', channels=4, norm=norm)

  def run():
    x = jnp.zeros((2, *size, given))
    drawn, variables = g.init_with_output(KEY, x, train=True)
    return drawn, variables, d.init_with_output(KEY, drawn)[0]

  drawn, variables, logits = jax.eval_shape(run)
  assert drawn.shape == (2, *size, made)
  assert logits.ndim == 3
  names = sorted(name for name in variables['params'] if name[-1].isdigit())
  for kind in ('down', 'up'):
    found = [name for name in names if name.startswith(kind)]
    assert found == [f'{kind}{i}' for i in range(halvings)]
