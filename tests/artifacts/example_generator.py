"""A random generator whose every parameter shows in its images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax import models
from qgan_jax.precision import (
  Bits,
  inputs_like,
  Precision,
  Quantized,
  QuantizerSpec,
)


def make_float(*, num_classes=0, latent_dim=16, seed=0, **kwargs):
  """(model_kwargs, variables), the activations of every layer near 1."""
  kwargs = {
    'image_size': 28, 'channels': 16, 'latent_dim': latent_dim,
    'num_classes': num_classes,
  } | kwargs  # fmt: skip
  module = models.make_generator('dcgan', **kwargs)
  labels = jnp.zeros(1, jnp.int32) if num_classes else None
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((1, latent_dim)), labels)
  )
  rng = np.random.default_rng(seed)

  def value(path, x):
    name = path[-1].key
    if name == 'kernel':
      return rng.standard_normal(x.shape) / np.sqrt(4 * x.shape[2])
    if name in ('scale', 'var'):
      turned = rng.choice([-1, 1], x.shape) if name == 'scale' else 1
      return rng.uniform(0.5, 1.5, x.shape) * turned
    return 0.3 * rng.standard_normal(x.shape)

  variables = jax.tree_util.tree_map_with_path(
    lambda path, x: value(path, x).astype(np.float32), shapes
  )
  return kwargs, variables


@functools.partial(jax.jit, static_argnums=(0, 1))
def calibrate(module, precision, variables, bits, latents, labels):
  """Ranges of the activations for a batch, and what quantizers learn."""
  ranges, learned = precision.init(
    module, variables, bits, latents, labels, train=False
  )
  return ranges, {k: v for k, v in learned.items() if k == 'activations'}


def make_generator(
  *,
  bits=(8, 8),
  weights='uniform',
  activations='affine',
  axis=-1,
  dynamic=False,
  num=64,
  **kwargs,
):
  """(network with calibrated ranges, latents, labels or None)."""
  kwargs, variables = make_float(**kwargs)
  module = models.make_generator('dcgan', **kwargs)
  precision = Precision(
    weights and QuantizerSpec(weights, axis),
    activations and QuantizerSpec(activations),
    0.0 if dynamic else 0.9,
  )
  widths = Bits(*(jnp.float32(n) for n in bits))
  rng = np.random.default_rng(1)
  latents = rng.standard_normal((num, kwargs['latent_dim'])).astype(np.float32)
  labels = None
  if kwargs['num_classes']:
    labels = np.arange(num, dtype=np.int32) % kwargs['num_classes']
  params = jax.jit(precision.quantize_weights)(variables['params'], widths)
  variables = {**variables, 'params': jax.tree.map(np.asarray, params)}
  ranges, learned = calibrate(
    module, precision, variables, widths, latents, labels
  )
  ranges = {} if dynamic else jax.tree.map(np.asarray, ranges)
  network = Quantized(
    module,
    precision,
    widths,
    variables,
    ranges,
    learned,
    inputs_like(latents, labels),
    rounded=True,
  )
  return network, latents, labels
