"""The step of a variant that is no GAN, against the algorithm by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny_run
from vae import LATENT_DIM, vae

from qgan_jax import config as config_lib
from qgan_jax.runs import build

STEPS = 3


def set_up(arg):
  config = config_lib.override(config_lib.base(batch_size=16), arg)
  return build.set_up(
    config_lib.resolve(config), tiny_run.make_dataset(), variant=vae(beta=0.5)
  )


def trained(setup, steps=STEPS):
  """The state before, and after some steps of one batch each."""
  before = setup.init_state()
  program = setup.program()
  state = program.put([before])
  images = setup.dataset.train_images[None, None, :16]
  for _ in range(steps):
    state, metrics = program(state, program.shard([{'images': images}]))
  values = {k: v for k, v in program.metrics([metrics])[0].items()}
  return before, program.get(state)[0], values


def test_both_networks_descend_one_loss():
  setup = set_up('bits=32,optimizer=sgd,learning_rate=0.001')
  before, after, metrics = trained(setup)
  modules = setup.variant.modules
  params = {name: part.params for name, part in before.networks.items()}
  images = setup.dataset.train_images[:16].astype(np.float32) / 127.5 - 1

  for step in range(STEPS):
    key = jax.random.fold_in(jax.random.fold_in(before.key, step), 0)
    key = jax.random.fold_in(jax.random.split(key)[1], 0)
    noise = jax.random.normal(key, (16, LATENT_DIM))

    def loss(params, noise=noise):
      mean, log_variance = modules['encoder'].apply(
        {'params': params['encoder']}, images
      )
      latents = mean + jnp.sqrt(jnp.exp(log_variance)) * noise
      drawn = modules['decoder'].apply({'params': params['decoder']}, latents)
      kl = jnp.exp(log_variance) + mean**2 - 1 - log_variance
      error = ((images - drawn) ** 2).reshape(16, -1).sum(1)
      return (error + 0.5 * 0.5 * kl.sum(1)).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    params = jax.tree.map(lambda w, g: w - 0.001 * g, params, gradient)
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-4)
  for name, expected in params.items():
    found = after.networks[name].params
    for x, y in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
  assert {'e_gradient_norm', 'd_gradient_norm'} <= metrics.keys()
  assert set(after.average) == {'decoder'}


def test_both_networks_are_quantized():
  setup = set_up('bits=4,start_step=0')
  bits = {(c.network, c.layer, c.role): c.bits for c in setup.table}
  assert bits['encoder', 'Conv_0', 'activations'] == 8  # Images.
  assert bits['decoder', 'Dense_1', 'activations'] == 4
  _, after, metrics = trained(setup)
  assert not after.halted
  assert metrics['finite']['encoder']['Conv_0']['kernel']
  network = setup.sampler().quantized(after)
  codes = network.weights(network.variables['params'])['Dense_1']['kernel']
  assert max(len(np.unique(column)) for column in np.asarray(codes).T) <= 16
