"""What a GAN's discriminator is shown where images are augmented."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.variants import gan
from qgan_jax.variants.augmentation import AUGMENTATIONS

BATCH = 8
KEY = jax.random.PRNGKey(3)
REAL, FAKE = np.random.default_rng(0).uniform(-1, 1, (2, BATCH, 16, 16, 3))
WEIGHTS = np.random.default_rng(1).normal(size=(16, 16, 3))
WEIGHTS -= WEIGHTS.mean()  # So that logits have either sign.


class Nets:
  """Networks in float on one device; the discriminator's inputs are kept."""

  def __init__(self, p=0.0):
    self.hyperparameters = {'penalty_weight': 1.0, 'augment_p': p}
    self.seen = []
    self.drawn = []

  def __getitem__(self, name):
    assert name == 'discriminator'

    def judge(images, labels):
      self.seen.append(images)
      return jnp.sum(images**2 * WEIGHTS, (1, 2, 3))

    return judge

  frozen = __getitem__

  def draw(self, draw, key, shape=(), rows=BATCH):
    self.drawn.append(draw(key, (rows, *shape)))
    return self.drawn[-1]

  def first(self, fraction):
    return round(fraction * BATCH), jnp.mean


def run(number, fake=FAKE, p=0.0, **kwargs):
  """(the value of a round's loss, its metrics, what was called)."""
  variant = gan(None, None, latent_dim=4, **kwargs)
  nets = Nets(p)
  value, metrics = variant.rounds[number].loss(
    nets, {'images': REAL}, {'images': fake, 'labels': None}, KEY
  )
  return value, metrics, nets


def changed(name, images, numbers, p):
  return AUGMENTATIONS[name].apply(images, numbers, p)


@pytest.mark.parametrize(('name', 'p'), [('diffaugment', 0.0), ('ada', 0.7)])
def test_real_images_and_fakes_are_changed_alike_in_all_rounds(name, p):
  kwargs = {'augment': name, 'penalty': 'r1_r2', 'penalty_fraction': 0.5}
  _, metrics, nets = run(0, p=p, **kwargs)
  real, fake, *_ = nets.seen
  assert not np.array_equal(*nets.drawn[:2])  # Each has numbers of its own.
  np.testing.assert_array_equal(real, changed(name, REAL, nets.drawn[0], p))
  np.testing.assert_array_equal(fake, changed(name, FAKE, nets.drawn[1], p))
  # R1 and R2 are of D at the images that it has seen.
  slopes = [(2 * x * WEIGHTS)[: BATCH // 2] for x in (real, fake)]
  expected = sum(0.5 * np.square(x).sum((1, 2, 3)) for x in slopes).mean()
  np.testing.assert_allclose(metrics['penalty'], expected, rtol=1e-5)
  assert ('d_real_sign' in metrics) == (name == 'ada')

  def g_loss(images):
    value, _, nets = run(1, images, p=p, **kwargs)
    return value, nets

  (_, nets), gradient = jax.value_and_grad(g_loss, has_aux=True)(FAKE)
  (numbers,) = nets.drawn
  expected = jax.grad(
    lambda x: jax.nn.softplus(
      -jnp.sum(changed(name, x, numbers, p) ** 2 * WEIGHTS, (1, 2, 3))
    ).mean()
  )(FAKE)
  np.testing.assert_allclose(gradient, expected, atol=1e-6)
  assert np.abs(gradient).max() > 0


def test_a_relativistic_generator_sees_changed_real_images_too():
  _, _, nets = run(1, augment='diffaugment', loss='relativistic')
  fake, real = nets.seen
  for images, start, numbers in zip(
    (fake, real), (FAKE, REAL), nets.drawn, strict=True
  ):
    np.testing.assert_array_equal(
      images, changed('diffaugment', start, numbers, 1.0)
    )


def test_the_sign_of_real_logits_is_measured():
  _, metrics, nets = run(0, augment='ada', p=0.25)
  logits = np.sum(np.asarray(nets.seen[0]) ** 2 * WEIGHTS, (1, 2, 3))
  assert len(set(np.sign(logits))) == 2
  np.testing.assert_allclose(metrics['d_real_sign'], np.sign(logits).mean())
  assert metrics['augment_p'] == 0.25


def test_quantizers_are_fitted_to_what_is_seen():
  def examples(**kwargs):
    variant = gan(None, None, latent_dim=4, **kwargs)
    return variant, variant.examples({'images': REAL}, KEY)['discriminator'][0]

  variant, images = examples()
  assert images is REAL
  assert variant.see_images == ('discriminator',)
  for name in ('diffaugment', 'ada'):
    variant, images = examples(augment=name)
    assert np.abs(images).max() > 1.2
    # They are no bytes any more, whose levels end at −1 and 1.
    assert variant.see_images == ()
  assert examples(flip=True)[0].see_images == ('discriminator',)


def test_what_cannot_be_is_refused():
  with pytest.raises(ValueError, match='one of none, diffaugment, ada'):
    gan(None, None, latent_dim=4, augment='add')
  with pytest.raises(ValueError, match='one of nonsaturating, hinge'):
    gan(None, None, latent_dim=4, augment='ada', loss='wasserstein')


def test_a_variant_without_it_is_the_one_that_it_was():
  """Runs of arrays go on with a variant of the same digest alone."""
  assert gan(None, None, latent_dim=4, penalty='r1').digest == '4cd19acdd0af'
