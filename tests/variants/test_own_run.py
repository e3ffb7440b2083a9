"""Variants and networks of somebody else's, as whole runs."""

import json
import os
import signal
import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae import Decoder, IMAGES, SHORT, vae

import qgan_jax as q
from qgan_jax.metrics import classifier
from qgan_jax.training.loop import Stopped

SETTINGS = SHORT | {
  'steps': 12,
  'log_every': 4,
  'checkpoint_every': 4,
  'sample_every': 12,
  'eval_every': 12,
}


@pytest.fixture(autouse=True)
def short_classifier(tmp_path, monkeypatch):
  """A classifier that need not be good, and that no other run finds."""
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(classifier, '_STEPS', 4)


def stop_at_the_first_checkpoint(folder):
  """SIGTERM to this very process, as soon as there is a checkpoint."""

  def stop():
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
      if (folder / 'checkpoints' / '4').exists():
        os.kill(os.getpid(), signal.SIGTERM)
        return
      time.sleep(0.005)

  thread = threading.Thread(target=stop)
  thread.start()
  return thread


def test_a_vae_trains_resumes_scores_and_packs(tmp_path):
  # So many checkpoints that the signal comes between two of them.
  settings = SETTINGS | {'steps': 60, 'bits': 4, 'start_step': 20}
  whole = q.train(vae(), IMAGES, workdir=tmp_path / 'whole', **settings)
  folder = tmp_path / 'stopped'
  thread = stop_at_the_first_checkpoint(folder)
  with pytest.raises(Stopped):
    q.train(vae(), IMAGES, workdir=folder, **settings)
  thread.join()
  again = q.train(vae(), IMAGES, workdir=folder, **settings)
  a, b = (
    run.network.variables | {'learned': run.network.learned}
    for run in (again, whole)
  )
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)
  assert again.scores == whole.scores
  assert again.scores['last']['step'] == 60
  rows = [
    json.loads(line)
    for line in (folder / 'metrics.jsonl').read_text().splitlines()
  ]
  assert {'loss', 'error', 'e_gradient_norm'} <= rows[0].keys()
  # What was packed is what was scored.
  latents = jax.random.normal(jax.random.key(1), (4, 4))
  packed = q.load(folder / 'decoder.qgan', module=Decoder())
  np.testing.assert_allclose(packed(latents), again.network(latents), atol=1e-6)
  # Finished, it is read and not trained again; with other settings, refused.
  before = (folder / 'scores.json').stat().st_mtime_ns
  q.train(vae(), IMAGES, workdir=folder, **settings)
  assert (folder / 'scores.json').stat().st_mtime_ns == before
  with pytest.raises(ValueError, match='another config'):
    q.train(vae(), IMAGES, workdir=folder, **settings | {'bits': 8})
  with pytest.raises(ValueError, match='another config'):
    q.train(vae(), IMAGES[1:], workdir=folder, **settings)
  # What the config does not say is told apart, too.
  with pytest.raises(ValueError, match='another config'):
    q.train(vae(beta=2.0), IMAGES, workdir=folder, **settings)


class WithAttention(nn.Module):
  """A stranger's generator, with a compute of its own in it."""

  @nn.compact
  def __call__(self, latents, labels=None):
    x = nn.Dense(16 * 8)(latents).reshape(-1, 16, 8)
    x += nn.MultiHeadDotProductAttention(num_heads=2)(x, x)
    mixed = self.param('mix', nn.initializers.normal(0.1), (8, 4))
    x = jnp.einsum('bpc,cd->bpd', x, mixed)
    return jnp.tanh(x.reshape(-1, 8, 8, 1))


class Judge(nn.Module):
  """A stranger's discriminator, with grouped convolutions and dropout."""

  @nn.compact
  def __call__(self, images, labels=None, *, train=False):
    x = nn.leaky_relu(nn.Conv(8, (3, 3), (2, 2))(images))
    x = nn.Dropout(0.2, deterministic=not train)(x)
    x = nn.leaky_relu(nn.Conv(8, (3, 3), feature_group_count=4)(x))
    return nn.Dense(1)(x.reshape(len(x), -1))[:, 0]


def test_a_strangers_modules_train_and_pack(tmp_path):
  gan = q.variants.gan(
    WithAttention(), Judge(), latent_dim=4, loss='relativistic', penalty='r1'
  )
  run = q.train(gan, IMAGES, workdir=tmp_path / 'run', bits=4, **SETTINGS)
  rows = json.loads((run.workdir / 'precision.json').read_text())
  bits = {(r['network'], r['layer'], r['role']): r['bits'] for r in rows}
  query = 'MultiHeadDotProductAttention_0/query'
  assert bits['generator', query, 'weights'] == 4
  assert bits['discriminator', 'Conv_1', 'activations'] == 4
  latents = jax.random.normal(jax.random.key(1), (4, 4))
  packed = q.load(run.workdir / 'generator.qgan', module=WithAttention())
  np.testing.assert_allclose(packed(latents), run.network(latents), atol=1e-6)


@pytest.mark.parametrize(
  ('images', 'settings', 'message'),
  [
    (IMAGES / 255, {}, 'uint8'),
    (IMAGES[..., 0], {}, 'uint8'),
    (IMAGES, {'labels': np.zeros(3, int)}, 'labels'),
    (IMAGES[:50], {}, 'give 100 images or more'),
    (np.repeat(IMAGES, 2, -1), {}, 'has images of 2 channels to draw'),
    (IMAGES, {'bits': 99}, 'bits'),
    (IMAGES, {'stepz': 3}, 'did you mean'),
    (IMAGES, {'steps': 'many'}, 'steps'),
    (IMAGES, {'loss': 'hinge'}, 'the variant and the images decide'),
    (IMAGES, {'d_steps': 2}, 'the variant and the images decide'),
    (IMAGES, {'rules': 'judge/weights/*: bits=8'}, 'no network is'),
  ],
)
def test_what_cannot_be_trained_is_said(tmp_path, images, settings, message):
  with pytest.raises(ValueError, match=message):
    q.train(vae(), images, workdir=tmp_path / 'run', **settings)
  assert not (tmp_path / 'run').exists()


def test_float_then_few_bits(tmp_path):
  settings = SETTINGS | {'batch_size': 4, 'steps': 4, 'logging.log_every': 2}
  start = tmp_path / 'float'
  q.train(vae(), IMAGES, workdir=start, bits=32, **settings)
  run = q.train(
    vae(),
    IMAGES,
    workdir=tmp_path / 'few',
    bits=3,
    init_from=str(start),
    rules='decoder/weights/Dense_1: bits=8',
    **settings,
  )
  table = json.loads((run.workdir / 'precision.json').read_text())
  bits = {(r['network'], r['layer'], r['role']): r['bits'] for r in table}
  assert bits['decoder', 'Dense_1', 'weights'] == 8
  assert bits['encoder', 'Dense_0', 'weights'] == 3


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'loss': 'hing'}, 'loss=.hing.: one of nonsaturating'),
    ({'penalty': 'r3'}, 'penalty=.r3.: one of r1'),
  ],
)
def test_a_loss_that_there_is_not_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    q.variants.gan(WithAttention(), Judge(), latent_dim=4, **options)


def test_classes_need_labels(tmp_path):
  gan = q.variants.gan(WithAttention(), Judge(), latent_dim=4, num_classes=3)
  with pytest.raises(ValueError, match='needs labels'):
    q.train(gan, IMAGES, workdir=tmp_path / 'run', **SETTINGS)
  of_three = q.variants.vae(
    Judge(), WithAttention(), latent_dim=4, num_classes=3
  )
  with pytest.raises(ValueError, match='needs labels'):
    q.train(of_three, IMAGES, workdir=tmp_path / 'run', **SETTINGS)
  labels = np.arange(len(IMAGES)) % 4
  with pytest.raises(ValueError, match=r'num_classes=3, and .* 4 classes'):
    q.train(gan, IMAGES, labels, workdir=tmp_path / 'run', **SETTINGS)
  assert q.variants.gan(Judge(), Judge(), latent_dim=4, penalty='none')


def test_what_is_drawn_is_one_array_that_depends_on_the_latents(tmp_path):
  class Noisy(nn.Module):
    @nn.compact
    def __call__(self, z, train=False):
      x = WithAttention()(z)
      return x + jax.random.normal(self.make_rng('noise'), x.shape)

  class Named(nn.Module):
    @nn.compact
    def __call__(self, z, train=False):
      return {'images': WithAttention()(z)}

  for module, message in ((Noisy(), 'generator draws random numbers where'),
                          (Named(), 'generator returns a dict')):  # fmt: skip
    gan = q.variants.gan(module, Judge(), latent_dim=4)
    with pytest.raises(ValueError, match=message):
      q.train(gan, IMAGES, workdir=tmp_path / 'run', **SETTINGS)


class WithStatistics(nn.Module):
  """BatchNorm that moves, BatchNorm that does not, and dropout."""

  @nn.compact
  def __call__(self, latents, *, train=False):
    x = nn.Dense(8)(latents)
    x = nn.BatchNorm(use_running_average=not train, name='moving')(x)
    x = nn.BatchNorm(use_running_average=True, name='fixed')(x)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return nn.Dense(64)(x).reshape(-1, 8, 8, 1)


def test_statistics_are_estimated_beside_dropout_and_fixed_ones():
  z = jax.random.normal(jax.random.key(0), (256, 4))
  variables = WithStatistics().init(jax.random.key(1), z)
  network = q.quantize((WithStatistics(), variables), bit_width=8)
  stats = network.with_batch_stats([(z,)]).variables['batch_stats']
  x = np.float64(z) @ np.float64(
    network.weights(network.variables['params'])['Dense_0']['kernel']
  )
  np.testing.assert_allclose(stats['moving']['mean'], x.mean(0), atol=1e-4)
  np.testing.assert_allclose(stats['moving']['var'], x.var(0), rtol=1e-3)
  np.testing.assert_array_equal(stats['fixed']['mean'], 0)
  np.testing.assert_array_equal(stats['fixed']['var'], 1)


class WithSpectralNorm(nn.Module):
  """BatchNorm after a kernel that is divided, and a counter of its own."""

  @nn.compact
  def __call__(self, latents, *, train=False):
    calls = self.variable('counters', 'calls', jnp.zeros, ())
    if train:
      calls.value += 1
    dense = nn.Dense(8, kernel_init=nn.initializers.normal(3.0))
    x = nn.SpectralNorm(dense)(latents, update_stats=train)
    return nn.BatchNorm(use_running_average=not train)(x)


def test_statistics_are_those_of_kernels_as_spectral_norm_divides_them():
  module = WithSpectralNorm()
  z = jax.random.normal(jax.random.key(0), (256, 4))
  variables = module.init(jax.random.key(1), z)
  for _ in range(50):  # Until its vectors stay as they are.
    moved = [name for name in variables if name != 'params']
    _, changed = module.apply(variables, z, train=True, mutable=moved)
    variables |= changed
  network = q.quantize((module, variables), bit_width=8)
  drawn = network.with_batch_stats([(z,)])(z)
  np.testing.assert_allclose(drawn.mean(0), 0, atol=1e-3)
  np.testing.assert_allclose(drawn.var(0), 1, rtol=1e-2)
