"""CycleGAN against its paper, by hand; and what a config makes of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from qgan_jax import config as config_lib
from qgan_jax.errors import UserError
from qgan_jax.runs import build
from qgan_jax.training import step as step_lib
from qgan_jax.variants import cyclegan

RATE, CYCLE, GAMMA = 0.01, 7.0, 0.5


class Translate(nn.Module):
  takes: int

  @nn.compact
  def __call__(self, images):
    assert images.shape[-1] == self.takes
    return jnp.tanh(nn.Conv(3 - self.takes, (3, 3))(images))


class Judge(nn.Module):
  """A logit for each of 3×3 patches."""

  takes: int

  @nn.compact
  def __call__(self, images):
    assert images.shape[-1] == self.takes
    x = jnp.tanh(nn.Conv(4, (3, 3))(images))
    return nn.Conv(1, (4, 4), (3, 3))(x)[..., 0]


def make(**kwargs):
  config = config_lib.override(
    config_lib.base(batch_size=16),
    f'bits=32,optimizer=sgd,learning_rate={RATE}',
  )
  variant = cyclegan(
    Translate(2),
    Translate(1),
    Judge(1),
    Judge(2),
    input_channels=2,
    cycle_weight=CYCLE,
    **kwargs,
  )
  return build.set_up(
    config_lib.resolve(config), tiny_run.make_pairs(8), variant=variant
  )


def test_one_step_is_that_of_the_paper():
  """Both D first, by eq. 1 with squares, and both G by eq. 3."""
  setup = make(penalty='r1', penalty_weight=GAMMA)
  state = setup.init_state()
  images = setup.dataset.train_images[None, :16]
  step = jax.jit(step_lib.make_step(setup.variant, setup.networks))
  after, metrics = step(state, {'images': images})
  modules = setup.variant.modules
  rows = step_lib.to_float(images[0])
  x, y = rows[..., :2], rows[..., 2:]

  def call(name, params, images):
    return modules[name].apply({'params': params[name]}, images)

  def d_loss(d, g):
    params, loss = {**d, **g}, 0.0
    for judge, maker, given, real in (
      ('discriminator', 'generator', x, y),
      ('back_discriminator', 'back_generator', y, x),
    ):
      fake = call(judge, params, call(maker, params, given))
      mean_logits = lambda images, judge=judge: (  # noqa: E731
        call(judge, params, images).mean((1, 2)).sum()
      )
      slopes = jax.grad(mean_logits)(real)
      # Half of the squares, by which D learns half as fast: section 4.
      squares = (call(judge, params, real) - 1) ** 2 / 2, fake**2 / 2
      loss += squares[0].mean() + squares[1].mean()
      loss += GAMMA * 0.5 * (slopes**2).sum((1, 2, 3)).mean()
    return loss

  def g_loss(g, d):
    params = {**d, **g}
    there = call('generator', params, x)
    back = call('back_generator', params, y)
    fooled = sum(
      ((call(judge, params, fake) - 1) ** 2 / 2).mean()
      for judge, fake in (
        ('discriminator', there),
        ('back_discriminator', back),
      )
    )
    cycle = jnp.abs(call('back_generator', params, there) - x).mean()
    cycle += jnp.abs(call('generator', params, back) - y).mean()
    return fooled + CYCLE * cycle

  params = {name: part.params for name, part in state.networks.items()}
  generators = {k: v for k, v in params.items() if 'generator' in k}
  judges = {k: v for k, v in params.items() if 'discriminator' in k}
  descend = lambda w, g: w - RATE * g  # noqa: E731
  d = jax.tree.map(descend, judges, jax.grad(d_loss)(judges, generators))
  value, slope = jax.value_and_grad(g_loss)(generators, d)
  g = jax.tree.map(descend, generators, slope)
  told = sum(
    metrics[f'{way}g_loss'] + CYCLE * metrics[f'{way}cycle']
    for way in ('', 'back_')
  )
  np.testing.assert_allclose(told, value, rtol=1e-5)
  for name, expected in {**d, **g}.items():
    found = after.networks[name].params
    for a, b in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)
  assert set(after.average) == {'generator'}


def test_what_shares_a_row_does_not_matter():
  """Other targets beside the same inputs, in the same batch: the same step."""
  setup = make()
  state, images = setup.init_state(), setup.dataset.train_images[None, :16]
  shuffled = np.concatenate([images[..., :2], images[:, ::-1, ..., 2:]], -1)
  step = jax.jit(step_lib.make_step(setup.variant, setup.networks))
  _, metrics = step(state, {'images': images})
  _, again = step(state, {'images': shuffled})
  for name in ('g_loss', 'back_g_loss', 'd_loss', 'cycle', 'back_cycle'):
    np.testing.assert_allclose(again[name], metrics[name], rtol=1e-5)


@pytest.mark.parametrize(
  ('family', 'first'), [('unet', 'down0'), ('translator', 'stem')]
)
def test_a_config_makes_it_of_a_family(family, first):
  setup = build.set_up(
    tiny_run.make_config(
      f'variant=cyclegan,model={family},norm=instance,g_bits=4,d_bits=6,'
      'flip=true'
    ),
    tiny_run.make_pairs(16, input_channels=1),
  )
  bits = {(c.network, c.layer, c.role): c.bits for c in setup.table}
  for name in ('generator', 'back_generator'):
    assert bits[name, first, 'activations'] == 8  # Images.
    assert bits[name, 'up0', 'activations'] == 4
  for name in ('discriminator', 'back_discriminator'):
    assert bits[name, 'down0', 'weights'] == 6
  images = jax.ShapeDtypeStruct((1, 2, 16, 16, 2), jnp.uint8)
  step = step_lib.make_step(setup.variant, setup.networks)
  _, metrics = jax.eval_shape(step, setup.state_shapes(), {'images': images})
  assert {'back_d_loss', 'g_loss', 'cycle', 'back_penalty'} <= metrics.keys()


@pytest.mark.parametrize(
  ('arg', 'says'),
  [
    ('', 'two folders of pictures; say pairs=A/B or domains=A/B'),
    ('domains=a', r'domains=.*names of two folders, A/B'),
    ('domains=a/b', 'source=random has none; say source=folder,dir=PATH'),
    ('domains=a/b,pairs=a/b', 'two ways to read folders; say one of them'),
    (
      'domains=a/b,source=folder,dir=x,conditional=true',
      'conditional=true does nothing with domains',
    ),
    (
      'variant=pix2pix,domains=a/b',
      'domains=a/b does nothing with variant=pix2pix; say variant=cyclegan',
    ),
  ],
)
def test_what_does_not_go_together(arg, says):
  given = dict([('variant', 'cyclegan'), ('model', 'unet')])
  given |= dict(part.split('=') for part in arg.split(',') if part)
  config = tiny_run.make_config(
    ','.join(f'{name}={value}' for name, value in given.items())
  )
  with pytest.raises(UserError, match=says):
    config_lib.validate(config)
