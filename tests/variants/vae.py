"""The VAE of docs/variants.md, word for word, with networks for tiny images."""

import functools
from pathlib import Path
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

LATENT_DIM = 4
IMAGES = (
  np.random.RandomState(0).randint(0, 256, (120, 8, 8, 1)).astype('uint8')
)
# Of runs on so few images; periods are the tests' own.
SHORT = {
  'batch_size': 8,
  'logging.eval_samples': 32,
  'scores.samples': 32,
}


class Encoder(nn.Module):
  """Images to the mean and the logarithm of the variance of q(z|x)."""

  @nn.compact
  def __call__(self, images):
    x = nn.relu(nn.Conv(8, (3, 3), (2, 2))(images))
    x = nn.Dense(2 * LATENT_DIM)(x.reshape(len(x), -1))
    return x[:, :LATENT_DIM], x[:, LATENT_DIM:]


class Decoder(nn.Module):
  """Latents to images."""

  size: int = 8

  @nn.compact
  def __call__(self, latents):
    x = nn.relu(nn.Dense(32)(latents))
    x = nn.Dense(self.size**2)(x)
    return jnp.tanh(x).reshape(-1, self.size, self.size, 1)


def _from_the_docs():
  """The function `vae` of the page."""
  page = Path(__file__).parents[2] / 'docs' / 'variants.md'
  blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
  (code,) = (block for block in blocks if 'def vae' in block)
  names = {}
  exec(code.partition('run = q.train')[0], names)
  return names['vae']


vae = functools.partial(_from_the_docs(), Encoder(), Decoder(), LATENT_DIM)
