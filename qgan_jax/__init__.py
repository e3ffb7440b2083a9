"""Quantized generative adversarial networks in JAX and Flax.

Example:
  A generator and a discriminator of your own, trained somewhere, get 4 bits:

  >>> import flax.linen as nn
  >>> import jax
  >>> import qgan_jax as q
  >>> class G(nn.Module):
  ...   @nn.compact
  ...   def __call__(self, z):
  ...     x = nn.relu(nn.Dense(16)(z))
  ...     return nn.tanh(nn.Dense(4)(x))
  >>> class D(nn.Module):
  ...   @nn.compact
  ...   def __call__(self, x):
  ...     x = nn.leaky_relu(nn.Dense(16)(x))
  ...     return nn.Dense(1)(x)
  >>> latents = jax.random.normal(jax.random.key(0), (256, 8))
  >>> g_variables = G().init(jax.random.key(1), latents)
  >>> d_variables = D().init(jax.random.key(2), G().apply(g_variables, latents))
  >>> g, d = q.quantize(
  ...   (G(), g_variables), (D(), d_variables), bit_width=4, calibrate=latents
  ... )
  >>> g(latents).shape
  (256, 4)
  >>> print(g.table())
  layer    role         bits  quantizer        range         shape
  Dense_0  weights      4     lsq per channel  -             8×16
  Dense_0  activations  8     affine           -3.92 … 3.61  8
  Dense_1  weights      4     lsq per channel  -             16×4
  Dense_1  activations  4     affine           0 … 3.5       16

  A file holds them in as many bits:

  >>> import os, tempfile
  >>> path = os.path.join(tempfile.mkdtemp(), 'g.qgan')
  >>> sizes = q.save(path, g)
  >>> same = q.load(path, module=G())  # Or without, if it is imported there.
  >>> bool((abs(same(latents) - g(latents)) < 1e-5).all())
  True

What is here is imported when it is first used: `import qgan_jax` alone loads
neither JAX nor Flax. XLA's log, such as its alarm about a compilation of two
minutes, stays away where JAX is imported after it, unless TF_CPP_MIN_LOG_LEVEL
is set: whatever fails is an exception.
"""

import importlib
import os
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
  from qgan_jax import quantizers, variants
  from qgan_jax.artifacts import load, save
  from qgan_jax.post_training import quantize
  from qgan_jax.precision import Quantized
  from qgan_jax.runs.own import train

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

__version__ = '0.1.0'
__all__ = [
  'Quantized',
  '__version__',
  'load',
  'quantize',
  'quantizers',
  'save',
  'train',
  'variants',
]

_MODULES = {
  'Quantized': 'qgan_jax.precision',
  'load': 'qgan_jax.artifacts',
  'quantize': 'qgan_jax.post_training',
  'save': 'qgan_jax.artifacts',
  'train': 'qgan_jax.runs.own',
}


def __getattr__(name: str) -> Any:
  if name in ('quantizers', 'variants'):
    return importlib.import_module(f'qgan_jax.{name}')
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
