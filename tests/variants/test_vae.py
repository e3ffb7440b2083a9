"""The VAE of the package, against the integrals that it bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats
import tiny_run

from qgan_jax.runs import build
from qgan_jax.variants import vae
from qgan_jax.variants.likelihoods import kl_to_normal, LIKELIHOODS

NUMBERS = {'beta': 0.5, 'noise': 0.3}
GREYS = np.random.RandomState(0).randint(0, 256, (5, 2, 2, 1))
IMAGES = GREYS / 127.5 - 1
MEAN, LOG_VARIANCE = 0.3, -0.5


def decode(z):
  """Images of four pixels from one latent, [B, 1] → [B, 2, 2, 1]."""
  slopes = np.array([0.5, -1.0, 1.0, 0.1])
  return np.tanh(np.asarray(z) * slopes + 0.2).reshape(-1, 2, 2, 1)


def log_likelihood(name, image, z):
  """log p(image | z) in float64, by SciPy."""
  drawn = decode(z)[0]
  if name == 'gaussian':
    density = stats.norm.logpdf(image, drawn, NUMBERS['noise'])
    return (density + np.log(2 / 255)).sum()
  p, white = (drawn + 1) / 2, (image + 1) / 2
  return (special.xlogy(white, p) + special.xlogy(1 - white, 1 - p)).sum()


@pytest.mark.parametrize('name', LIKELIHOODS)
def test_likelihoods_are_their_distributions(name):
  drawn = np.linspace(-0.9, 0.8, 5)[:, None]
  got = LIKELIHOODS[name](IMAGES, decode(drawn), NUMBERS['noise'])
  expected = [
    log_likelihood(name, x, z) for x, z in zip(IMAGES, drawn, strict=True)
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_bytes_around_what_is_drawn_have_probabilities():
  every = (np.arange(256) / 127.5 - 1).reshape(256, 1, 1, 1)
  logs = LIKELIHOODS['gaussian'](every, np.full_like(every, 0.1), 0.05)
  np.testing.assert_allclose(np.exp(logs).sum(), 1, rtol=1e-3)
  edges = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
  sure = LIKELIHOODS['bernoulli'](edges, jnp.float32(edges), 0.0)
  np.testing.assert_allclose(sure, 0, atol=1e-4)
  # What was surely wrong has a gradient, and no infinite loss.
  value, slope = jax.value_and_grad(
    lambda drawn: LIKELIHOODS['bernoulli'](edges, drawn, 0.0).sum()
  )(jnp.float32(-edges))
  assert np.isfinite(value) and value < -20
  assert (np.asarray(slope) * edges > 0).all()


def test_kl_is_the_integral():
  def integrand(z):
    q = stats.norm(MEAN, np.exp(LOG_VARIANCE / 2))
    return q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z))

  expected, _ = integrate.quad(integrand, -12, 12)
  got = kl_to_normal(jnp.array([[MEAN]]), jnp.array([[LOG_VARIANCE]]))
  np.testing.assert_allclose(got, [expected], rtol=1e-5)


def encode(images, labels=None):
  one = jnp.ones((len(images), 1))
  return MEAN * one, LOG_VARIANCE * one


def jax_decode(z, labels=None):
  slopes = jnp.array([0.5, -1.0, 1.0, 0.1])
  return jnp.tanh(z * slopes + 0.2).reshape(-1, 2, 2, 1)


@pytest.mark.parametrize('name', LIKELIHOODS)
def test_bounds_are_between_the_elbo_and_the_evidence(name):
  """On average over many copies of an image, whose latents differ."""
  variant = vae(None, None, latent_dim=1, likelihood=name)
  nets = {'encoder': encode, 'decoder': jax_decode}
  copies = np.repeat(IMAGES[:1].astype(np.float32), 4000, 0)
  found = jax.jit(
    lambda images, key: variant.measure(nets, NUMBERS, {'images': images}, key)
  )(copies, jax.random.key(0))
  q = stats.norm(MEAN, np.exp(LOG_VARIANCE / 2))

  def expectation(value):
    return integrate.quad(value, -8, 8, limit=200)[0]

  def evidence(z):
    return np.exp(log_likelihood(name, IMAGES[0], z)) * stats.norm.pdf(z)

  log_p = np.log(expectation(evidence))
  fit = expectation(lambda z: q.pdf(z) * log_likelihood(name, IMAGES[0], z))
  kl = expectation(lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)))
  elbo = float(found['elbo'].mean())
  bound = float(found['importance_weighted_bound'].mean())
  np.testing.assert_allclose(elbo, fit - kl, atol=0.02)
  np.testing.assert_allclose(found['kl'], kl, rtol=1e-4)
  # 32 latents of one dimension leave little of the gap.
  assert elbo < bound < log_p + 0.005
  np.testing.assert_allclose(bound, log_p, atol=0.05)
  error = np.mean((IMAGES[0] - decode([[MEAN]])[0]) ** 2)
  np.testing.assert_allclose(found['reconstruction_error'], error, rtol=1e-4)


class StandIns(dict):
  """Networks as a loss calls them, all in float."""

  hyperparameters = NUMBERS

  def draw(self, draw, key, shape):
    return draw(key, (len(IMAGES), *shape))


def test_the_loss_is_the_elbo_with_beta():
  variant = vae(None, None, latent_dim=1, likelihood='gaussian')
  nets = StandIns(encoder=encode, decoder=jax_decode)
  key = jax.random.key(1)
  (round_,) = variant.rounds
  images = jnp.float32(IMAGES)
  value, metrics = round_.loss(nets, {'images': images}, {}, key)
  z = MEAN + np.exp(LOG_VARIANCE / 2) * jax.random.normal(key, (5, 1))
  fits = [
    log_likelihood('gaussian', x, latent)
    for x, latent in zip(IMAGES, np.float64(z), strict=True)
  ]
  kl = kl_to_normal(*encode(IMAGES)).mean()
  np.testing.assert_allclose(value, 0.5 * kl - np.mean(fits), rtol=1e-4)
  np.testing.assert_allclose(metrics['elbo'], np.mean(fits) - kl, rtol=1e-4)
  with pytest.raises(ValueError, match='likelihood=.normal.: one of bern'):
    vae(None, None, latent_dim=1, likelihood='normal')


@pytest.mark.parametrize('family', ['dcgan', 'resnet'])
def test_a_config_makes_it_of_a_family(family):
  config = tiny_run.make_config(
    f'variant=vae,model={family},g_bits=4,d_bits=6,latent_dim=5'
  )
  setup = build.set_up(config, tiny_run.make_dataset())
  bits = {(c.network, c.role): c.bits for c in setup.table}
  assert bits['decoder', 'weights'] == 4
  assert bits['encoder', 'weights'] == 6
  state = setup.state_shapes()
  assert set(state.networks) == {'encoder', 'decoder'}
  assert set(state.average) == {'encoder', 'decoder'}
  head = state.networks['encoder'].params['posterior']['features']['kernel']
  assert head.shape[-1] == 10


def test_quantized_networks_are_measured_on_held_out_images():
  setup = build.set_up(
    tiny_run.make_config('variant=vae,bits=3,conditional=true,latent_dim=5'),
    tiny_run.make_dataset(),
  )
  state = setup.init_state()
  found = setup.measure(state)
  # An untrained one draws grey, and its latents say nothing: half a nat of
  # uncertainty a pixel is ln 2.
  assert found['num_measured'] == 40
  np.testing.assert_allclose(found['elbo'], -64 * np.log(2), rtol=0.05)
  assert found == setup.measure(state)
  assert found != setup.measure(state, seed=1)
