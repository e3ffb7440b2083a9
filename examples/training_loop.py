"""Trains a quantized GAN in a training loop of your own, in plain Optax.

Run it with `python examples/training_loop.py [STEPS [FILE.qgan]]`.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import qgan_jax as q
from qgan_jax.precision import Bits, inputs_like, make_precision
from qgan_jax.training.optimizers import make_quantizer_optimizer

G = nn.Sequential((nn.Dense(256), nn.relu, nn.Dense(64), nn.tanh))
D = nn.Sequential((nn.Dense(256), nn.leaky_relu, nn.Dense(1)))
# LSQ learns scales, LSQ+ offsets too. Widths are arrays: one program for all.
PRECISION = make_precision(
  weights='lsq', activations='lsq_plus', per_channel=True,
  ranges='moving', momentum=0.99, input_bits=8,
)  # fmt: skip
BITS = Bits(weights=jnp.float32(4), activations=jnp.float32(4))
# Learned scales want steps in proportion to them: a step of Adam is as long for
# a scale of 0.01 as for one of 10, and soon takes the small one past 0.
ADAM, FOR_SCALES = optax.adam(1e-3, b1=0.5), make_quantizer_optimizer(1e-3)
OPTIMIZER = optax.multi_transform(
  {'params': ADAM, 'learned': FOR_SCALES}, lambda net: {key: key for key in net}
)


def init(module, key, example):
  net = module.init(key, example)  # {'params': …}; 'learned' is trained, too.
  # The quantizers start where they fit the weights and one batch best.
  _, net['learned'] = PRECISION.init(module, net, BITS, example)
  return net, OPTIMIZER.init(net)


def run(module, net, x):
  learned = net['learned']
  weights = PRECISION.quantize_weights(net['params'], BITS, learned=learned)
  variables = {'params': weights}
  return PRECISION.apply(module, variables, {}, BITS, x, learned=learned)[0]


def update(loss, net, state):
  changes, state = OPTIMIZER.update(jax.grad(loss)(net), state, net)
  return optax.apply_updates(net, changes), state


@jax.jit
def step(g, d, images, z):
  def d_loss(net):
    real, fake = run(D, net, images), run(D, net, run(G, g[0], z))
    return jnp.mean(nn.softplus(-real) + nn.softplus(fake))

  d = update(d_loss, *d)
  return update(lambda net: -run(D, d[0], run(G, net, z)).mean(), *g), d


def main(steps: str = '1000', path: str = 'g.qgan') -> None:
  images = jnp.float32(load_digits().data) / 8 - 1  # [N, 64] in [−1, 1]
  latents = jax.random.normal(jax.random.key(0), (int(steps), 64, 16))
  start = jax.jit(init, static_argnums=0)
  g = start(G, jax.random.key(1), latents[0])
  d = start(D, jax.random.key(2), images[:64])
  for i, z in enumerate(latents):
    g, d = step(g, d, jax.random.choice(jax.random.key(i), images, (64,)), z)
  # What was trained as one object: it draws, and goes into a file.
  params, learned = {'params': g[0]['params']}, g[0]['learned']
  inputs = inputs_like(latents[0])
  network = q.Quantized(G, PRECISION, BITS, params, {}, learned, inputs)
  print(network.table(), q.save(path, network), sep='\n')


if __name__ == '__main__':
  main(*sys.argv[1:])
