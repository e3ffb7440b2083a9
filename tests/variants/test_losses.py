import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qgan_jax.variants import losses
from qgan_jax.variants.penalties import penalty_of

REAL = np.array([-2.0, 0.3, 5.0])
FAKE = np.array([-1.5, 0.0, 4.0])


def log_sigmoid(x):
  return -np.log1p(np.exp(-x))


@pytest.mark.parametrize(
  ('name', 'd', 'g'),
  [
    (
      'nonsaturating',
      -log_sigmoid(REAL).mean() - log_sigmoid(-FAKE).mean(),
      -log_sigmoid(FAKE).mean(),
    ),
    (
      'least_squares',
      ((REAL - 1) ** 2).mean() / 2 + (FAKE**2).mean() / 2,
      ((FAKE - 1) ** 2).mean() / 2,
    ),
    (
      'hinge',
      np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean(),
      -FAKE.mean(),
    ),
    ('wasserstein', FAKE.mean() - REAL.mean(), -FAKE.mean()),
  ],
)
def test_losses_are_those_of_their_papers(name, d, g):
  loss = losses.LOSSES[name]
  real, fake = jnp.asarray(REAL), jnp.asarray(FAKE)
  np.testing.assert_allclose(loss.discriminator(real, fake), d, rtol=1e-5)
  np.testing.assert_allclose(loss.generator(fake), g, rtol=1e-5)


def test_the_relativistic_loss_compares_pairs():
  """Of R3GAN, eq. 2: f(D(G(z)) − D(x)) with f(t) = −log σ(−t)."""
  loss = losses.LOSSES['relativistic']
  real, fake = jnp.asarray(REAL), jnp.asarray(FAKE)
  d = -log_sigmoid(REAL - FAKE).mean()
  np.testing.assert_allclose(loss.discriminator(real, fake), d, rtol=1e-5)
  g = -log_sigmoid(FAKE - REAL).mean()
  np.testing.assert_allclose(loss.generator(fake, real), g, rtol=1e-5)
  assert loss.relativistic


def quadratic(x):
  """D(x) = ½ Σ a x² of an image, with ∇D(x) = a x."""
  return 0.5 * jnp.sum(jnp.arange(1.0, 5.0).reshape(2, 2, 1) * x**2, (1, 2, 3))


def test_r1_is_half_the_squared_norm_on_real_images():
  real = np.random.RandomState(0).randn(3, 2, 2, 1)
  gradient = np.arange(1.0, 5.0).reshape(2, 2, 1) * real
  expected = 0.5 * (gradient**2).sum((1, 2, 3))
  got = losses.r1(quadratic, jnp.asarray(real), None, None)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_r1_and_r2_are_those_of_real_images_and_of_fakes():
  real, fake = np.random.RandomState(0).randn(2, 3, 2, 2, 1)
  slopes = np.arange(1.0, 5.0).reshape(2, 2, 1)
  expected = sum(0.5 * ((slopes * x) ** 2).sum((1, 2, 3)) for x in (real, fake))
  got = losses.r1_r2(quadratic, jnp.asarray(real), jnp.asarray(fake), None)
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert losses.PENALTIES.keys() | {'none'} == losses.PENALTY_WEIGHTS.keys()


def test_gradient_penalty_is_gulrajanis_between_real_and_fake():
  rng = np.random.RandomState(0)
  real, fake = rng.randn(2, 3, 2, 2, 1)
  mix = rng.rand(3, 1, 1, 1)
  x = mix * real + (1 - mix) * fake
  norms = np.sqrt(
    ((np.arange(1.0, 5.0).reshape(2, 2, 1) * x) ** 2).sum((1, 2, 3))
  )
  got = losses.gradient_penalty(
    quadratic, jnp.asarray(real), jnp.asarray(fake), jnp.asarray(mix)
  )
  np.testing.assert_allclose(got, (norms - 1) ** 2, rtol=1e-4)


def test_gradient_penalty_of_a_flat_d_has_a_finite_gradient():
  def value(scale):
    return losses.gradient_penalty(
      lambda x: scale * jnp.sum(x, (1, 2, 3)),
      jnp.ones((2, 2, 2, 1)),
      jnp.zeros((2, 2, 2, 1)),
      0.5,
    ).mean()

  assert jnp.isfinite(jax.grad(value)(0.0))


class Half:
  """Networks of a loss, of which half of the batch counts."""

  def first(self, fraction):
    return round(4 * fraction), jnp.mean

  def draw(self, draw, key, shape, rows):
    return draw(key, (rows, *shape))


@pytest.mark.parametrize(
  ('penalty', 'expected'), [('r1', [3, 1]), ('r1_r2', [3, 1, 0, 2])]
)
def test_either_kind_of_images_is_judged_by_its_own_labels(penalty, expected):
  seen = []

  def judge(images, labels):
    seen.append(labels)
    return jnp.sum(images, (1, 2, 3))

  real, fake = jnp.zeros((2, 4, 2, 2, 1))
  value = penalty_of(
    Half(), losses.PENALTIES[penalty], 0.5, judge,
    (real, jnp.array([3, 1, 1, 1])), (fake, jnp.array([0, 2, 2, 2])),
    jax.random.key(0),
  )  # fmt: skip
  np.testing.assert_array_equal(seen[0], expected)
  assert value == (2 if penalty == 'r1' else 4)
  penalty_of(
    Half(), losses.PENALTIES[penalty], 0.5, judge, (real, None), (fake, None),
    jax.random.key(0),
  )  # fmt: skip
  assert seen[1] is None
