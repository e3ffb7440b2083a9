"""DCGAN with spectral norm on CIFAR-10, 32×32 RGB.

  python -m qgan_jax.main --config=cifar10:bits=8,seed=0

It needs the data set as TensorFlow Datasets prepares it, and has not been
measured. `cifar_jpeg`, the same images as JPEG files, has been.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  config = base(
    experiment='cifar10',
    image_size=32,
    image_channels=3,
    steps=100_000,
    channels=64,
    latent_dim=128,
    batch_size=64,
    loss='hinge',
    penalty='none',
    spectral_norm=True,
    eval_every=10_000,
    checkpoint_every=5000,
  )
  return override(config, arg)


def sweep(add):
  """Weights and activations apart, at 8 and 4 bits."""
  for w_bits in (32, 8, 4):
    for a_bits in (32, 8, 4):
      add(f'w_bits={w_bits},a_bits={a_bits},seed=0')
