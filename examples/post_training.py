"""Quantizes a network after training, saves it, and loads it again.

  python examples/post_training.py [FOLDER]

The network is a Flax module written without this package. It has attention, and
a parameter that belongs to no layer: its own code multiplies by it.
"""

from pathlib import Path
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import qgan_jax as q


class Generator(nn.Module):
  """Latents [B, 16] to images [B, 8, 8, 1]."""

  @nn.compact
  def __call__(self, z):
    x = nn.Dense(64 * 16)(z).reshape(-1, 64, 16)  # 64 pixels of 16 features
    x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x, x)
    mix = self.param('mix', nn.initializers.lecun_normal(), (16, 16))
    x = nn.relu(jnp.einsum('bpi,io->bpo', x, mix))
    x = nn.Conv(16, (3, 3), feature_group_count=4)(x.reshape(-1, 8, 8, 16))
    return nn.tanh(nn.Conv(1, (3, 3))(nn.relu(x)))


def main(folder: Path) -> None:
  # Of a trained network these would be its latents and its variables.
  latents = jax.random.normal(jax.random.key(0), (256, 16))
  variables = jax.jit(Generator().init)(jax.random.key(1), latents)
  images = jax.jit(Generator().apply)(variables, latents)

  # `calibrate` are inputs as the network will see them: from them come the
  # ranges of the activations. Without it, weights alone are quantized.
  draw = jax.jit(lambda network, z: network(z))
  for bit_width in (8, 3):
    network = q.quantize(
      (Generator(), variables), bit_width=bit_width, calibrate=latents
    )
    error = jnp.std(draw(network, latents) - images) / jnp.std(images)
    path = folder / f'generator-{bit_width}-bits.qgan'
    sizes = q.save(path, network)
    print(
      f'{bit_width} bits: {error:.1%} off the float network, '
      f'{sizes.artifact_bytes:,} bytes, {sizes.ratio:.1f}× smaller'
    )

  # Attention and convolutions are layers that are known. The parameter `mix`
  # belongs to no layer: it is left in float, unless a rule names it.
  network = q.quantize(
    (Generator(), variables),
    bit_width=4,
    calibrate=latents,
    rules='generator/weights/mix: bits=8',
  )
  print(network.table())

  # A file names the class, which has to be imported where it is read. (Where
  # that cannot be, give the module: q.load(path, module=Generator()).)
  path = folder / 'generator.qgan'
  q.save(path, network)
  loaded = q.load(path)
  np.testing.assert_allclose(
    draw(loaded, latents), draw(network, latents), atol=1e-5
  )
  print(f'{path} draws the same')


if __name__ == '__main__':
  main(Path(sys.argv[1] if sys.argv[1:] else '.'))
