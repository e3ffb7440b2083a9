"""pix2pix against its paper, by hand; and what a config makes of it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from qgan_jax import config as config_lib
from qgan_jax.errors import UserError
from qgan_jax.precision import Quantized
from qgan_jax.runs import build
from qgan_jax.training import step as step_lib
from qgan_jax.training.sampling import CHOICE_SEED
from qgan_jax.variants import pix2pix

RATE, L1, GAMMA = 0.01, 7.0, 0.5


class Translate(nn.Module):
  @nn.compact
  def __call__(self, images):
    assert images.shape[-1] == 2
    return jnp.tanh(nn.Conv(1, (3, 3))(images))


class Judge(nn.Module):
  """A logit for each of 3×3 patches."""

  @nn.compact
  def __call__(self, pairs):
    assert pairs.shape[-1] == 3
    x = jnp.tanh(nn.Conv(4, (3, 3))(pairs))
    return nn.Conv(1, (4, 4), (3, 3))(x)[..., 0]


def make(**kwargs):
  config = config_lib.override(
    config_lib.base(batch_size=16),
    f'bits=32,optimizer=sgd,learning_rate={RATE}',
  )
  variant = pix2pix(
    Translate(), Judge(), input_channels=2, l1_weight=L1, **kwargs
  )
  return build.set_up(
    config_lib.resolve(config), tiny_run.make_pairs(8), variant=variant
  )


def test_one_step_is_that_of_the_paper():
  """D first, and G against its update; with a penalty by pairs."""
  setup = make(penalty='r1', penalty_weight=GAMMA)
  state = setup.init_state()
  images = setup.dataset.train_images[None, :16]
  step = jax.jit(step_lib.make_step(setup.variant, setup.networks))
  after, metrics = step(state, {'images': images})
  modules = setup.variant.modules
  pairs = step_lib.to_float(images[0])
  inputs, targets = pairs[..., :2], pairs[..., 2:]

  def d_loss(d, g):
    def judge(pairs):
      return modules['discriminator'].apply({'params': d}, pairs)

    drawn = modules['generator'].apply({'params': g}, inputs)
    fake = judge(jnp.concatenate([inputs, drawn], -1))
    mean_logits = lambda x: judge(x).mean((1, 2)).sum()  # noqa: E731
    slopes = jax.grad(mean_logits)(pairs)
    penalty = 0.5 * (slopes**2).sum((1, 2, 3)).mean()
    # The logarithms of section 3.1, of probabilities that are sigmoids.
    loss = -jnp.log(nn.sigmoid(judge(pairs))) - jnp.log(1 - nn.sigmoid(fake))
    return loss.mean() + GAMMA * penalty

  def g_loss(g, d):
    drawn = modules['generator'].apply({'params': g}, inputs)
    fake = modules['discriminator'].apply(
      {'params': d}, jnp.concatenate([inputs, drawn], -1)
    )
    difference = jnp.abs(targets - drawn).mean()
    return -jnp.log(nn.sigmoid(fake)).mean() + L1 * difference

  params = {name: part.params for name, part in state.networks.items()}
  descend = lambda w, g: w - RATE * g  # noqa: E731
  slope = jax.grad(d_loss)(params['discriminator'], params['generator'])
  d = jax.tree.map(descend, params['discriminator'], slope)
  value, slope = jax.value_and_grad(g_loss)(params['generator'], d)
  g = jax.tree.map(descend, params['generator'], slope)
  np.testing.assert_allclose(
    metrics['g_loss'] + L1 * metrics['l1'], value, rtol=1e-5
  )
  for name, expected in (('discriminator', d), ('generator', g)):
    found = after.networks[name].params
    for x, y in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6, err_msg=name)
  assert set(after.average) == {'generator'}


def test_a_relativistic_loss_compares_pairs_of_one_input():
  setup = make(loss='relativistic')
  state, images = setup.init_state(), setup.dataset.train_images[None, :16]
  step = jax.jit(step_lib.make_step(setup.variant, setup.networks))
  _, metrics = step(state, {'images': images})
  modules = setup.variant.modules
  params = {name: part.params for name, part in state.networks.items()}
  pairs = step_lib.to_float(images[0])
  drawn = modules['generator'].apply(
    {'params': params['generator']}, pairs[..., :2]
  )
  real, fake = (
    modules['discriminator'].apply({'params': params['discriminator']}, x)
    for x in (pairs, jnp.concatenate([pairs[..., :2], drawn], -1))
  )
  expected = jax.nn.softplus(fake - real).mean()
  np.testing.assert_allclose(metrics['d_loss'], expected, rtol=1e-5)


class Same(nn.Module):
  """Its images are its inputs' first channel, halved."""

  @nn.compact
  def __call__(self, images):
    scale = self.param('scale', nn.initializers.constant(0.5), ())
    return scale * images[..., :1]


def test_images_are_drawn_from_what_is_held_out_in_its_order():
  setup = make()
  network = dataclasses.replace(setup.networks['generator'], module=Same())
  sampler = dataclasses.replace(setup.sampler(), network=network)
  state = setup.init_state()
  average = state.networks['generator'].replace(
    params={'scale': np.float32(0.5)}, stats={}
  )
  state = state.replace(
    networks={**state.networks, 'generator': average}, average={}
  )
  dataset = setup.dataset

  def expected(images):
    half = (images[..., :1].astype(float) / 127.5 - 1) / 2
    return (half + 1) * 127.5

  for seed, images in ((0, dataset.test_images), (3, dataset.test_images),
                       (CHOICE_SEED, dataset.train_images)):  # fmt: skip
    drawn = sampler(state, 1000, seed=seed)
    assert len(drawn) == 40
    assert np.abs(drawn - expected(images)).max() <= 0.501
    np.testing.assert_array_equal(sampler(state, 7, seed=seed), drawn[:7])
  network = sampler.quantized(state)
  assert isinstance(network, Quantized)
  assert network.inputs == (((8, 8, 2), 'float32'),)


def test_a_config_makes_it_of_a_family():
  setup = build.set_up(
    tiny_run.make_config(
      'variant=pix2pix,model=unet,norm=instance,g_bits=4,d_bits=6,flip=true'
    ),
    tiny_run.make_pairs(16),
  )
  bits = {(c.network, c.layer, c.role): c.bits for c in setup.table}
  assert bits['generator', 'down0', 'activations'] == 8  # Images.
  assert bits['generator', 'up0', 'activations'] == 4
  assert bits['discriminator', 'down0', 'weights'] == 6
  images = jax.ShapeDtypeStruct((1, 2, 16, 16, 3), jnp.uint8)
  step = step_lib.make_step(setup.variant, setup.networks)
  _, metrics = jax.eval_shape(step, setup.state_shapes(), {'images': images})
  assert {'d_loss', 'g_loss', 'l1', 'penalty'} <= metrics.keys()


@pytest.mark.parametrize(
  ('arg', 'says'),
  [
    ('model=dcgan', 'makes images of images, .*model=dcgan .*say model=unet'),
    ('', 'learns from two folders of pictures; say pairs=A/B, their'),
    ('pairs=a', r'pairs=.*names of two folders, A/B'),
    ('pairs=a/b', 'source=random has none; say source=folder,dir=PATH'),
    (
      'pairs=a/b,source=folder,dir=x,conditional=true',
      'conditional=true does nothing with pairs',
    ),
    (
      'variant=gan,model=dcgan,pairs=a/b',
      'pairs=a/b does nothing with variant=gan',
    ),
    (
      'variant=gan',
      'makes images of latents, .*model=unet .* model=dcgan or resnet or r3gan',
    ),
  ],
)
def test_what_does_not_go_together(arg, says):
  given = dict([('variant', 'pix2pix'), ('model', 'unet')])
  given |= dict(part.split('=') for part in arg.split(',') if part)
  config = tiny_run.make_config(
    ','.join(f'{name}={value}' for name, value in given.items())
  )
  with pytest.raises(UserError, match=says):
    config_lib.validate(config)
