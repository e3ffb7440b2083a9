"""Latents of drawn images: each by its seed and index, none used twice."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qgan_jax import metrics
from qgan_jax.precision import Bits, Precision
from qgan_jax.precision.schedule import Schedule
from qgan_jax.runs import periodic
from qgan_jax.training.sampling import CHOICE_SEED, Sampler
from qgan_jax.training.state import init_network, init_state
from qgan_jax.training.trainable import Trainable
from qgan_jax.variants import gan

KEY = jax.random.PRNGKey(0)


class Show(nn.Module):
  """A generator whose images are its latents, scaled and cut to [−1, 1]."""

  @nn.compact
  def __call__(self, latents, labels):
    scale = self.param('scale', nn.initializers.ones, ())
    return jnp.reshape(scale * latents / 4, (-1, 8, 8, 1))


def make_state():
  network = make_show().network
  example = jnp.zeros((1, 64)), None
  bits = Bits(jnp.float32(32), jnp.float32(32))
  part = init_network(
    network.module, network.precision, network.optimizer, bits, KEY, *example
  )
  return init_state(KEY, {'generator': part}, averaged=('generator',))


def make_show():
  network = Trainable(Show(), Precision(), optax.identity())
  inputs = gan(Show(), Show(), latent_dim=64).inputs
  return Sampler('generator', network, Schedule(), inputs)


def rows(images):
  return {image.tobytes() for image in images}


def test_an_image_depends_on_seed_and_index_alone():
  draw, state = make_show(), make_state()
  many = draw(state, 300, seed=5)
  np.testing.assert_array_equal(draw(state, 20, seed=5), many[:20])
  assert len(rows(many)) == 300


def test_what_chooses_shares_no_latent_with_what_is_reported():
  draw, state = make_show(), make_state()
  reported, choice = draw(state, 2000), draw(state, 2000, seed=CHOICE_SEED)
  assert len(rows(reported) | rows(choice)) == 4000


def test_quick_scores_choose_by_latents_of_their_own(tmp_path):
  drawn, best = [], []
  show = make_show()

  def draw(state, num, **kwargs):
    images = show(state, num, **kwargs)
    drawn.append(rows(images))
    return images

  def extract(images):
    flat = images.reshape(len(images), -1).astype(np.float32)
    return metrics.Features(flat[:, :4], None)

  config = types.SimpleNamespace(
    logging=types.SimpleNamespace(
      eval_samples=100, eval_every=1, sample_every=1, diagnose=False
    )
  )
  run = types.SimpleNamespace(
    config=config,
    workdir=tmp_path,
    setup=types.SimpleNamespace(labels_to_draw=lambda num: np.arange(num)),
    sampler=draw,
    checkpoints=types.SimpleNamespace(
      save_best=lambda *args: best.append(args)
    ),
  )
  reference = extract(show(make_state(), 50, seed=9))
  extractor = metrics.Extractor('x', '', '', '', None, extract)
  _, evaluate = periodic.periodic(
    run, None, lambda: (extractor, reference), None, {}
  )
  evaluate.run(1, make_state())
  assert len(best) == 1
  assert len(drawn[0]) == 100
  assert not drawn[0] & rows(show(make_state(), 100))


class ShowLabels(nn.Module):
  """A generator whose images are grey as their label says."""

  @nn.compact
  def __call__(self, latents, labels):
    scale = self.param('scale', nn.initializers.ones, ())
    grey = scale * labels.astype('float32') / 127.5 - 1
    return jnp.broadcast_to(grey[:, None, None, None], (len(latents), 2, 2, 1))


def test_images_have_the_classes_that_are_asked_for():
  state = make_state()
  sampler = Sampler(
    'generator',
    Trainable(ShowLabels(), Precision(), optax.identity()),
    Schedule(),
    gan(ShowLabels(), ShowLabels(), latent_dim=64, num_classes=7).inputs,
  )
  in_turn = sampler(state, 300)[:, 0, 0, 0]
  np.testing.assert_array_equal(in_turn, np.arange(300) % 7)
  labels = np.random.default_rng(0).integers(0, 7, 300).astype('int32')
  chosen = sampler(state, 300, labels=labels)[:, 0, 0, 0]
  np.testing.assert_array_equal(chosen, labels)


def test_other_runs_start_from_every_moving_average():
  part = make_state().networks['generator']
  names = ('generator', 'encoder', 'discriminator')
  state = init_state(
    KEY, dict.fromkeys(names, part), averaged=('generator', 'encoder')
  )
  trained = part.replace(params={'scale': jnp.float32(3)})
  state = state.replace(networks=dict.fromkeys(names, trained))
  found = make_show().variables(state)
  scales = {name: float(found[name]['params']['scale']) for name in names}
  assert scales == {'generator': 1, 'encoder': 1, 'discriminator': 3}
