"""SNGAN's ResNet on CIFAR-10's images as JPEG files, 32×32 RGB.

  python -m qgan_jax.main \
    --config=cifar_jpeg:dir=/path/to/cifar10-jpeg.zip,bits=8

The archive (or a folder with the same content) has the folders `train` and
`test`, and in each a folder for each class; with `conditional=true` these are
the classes. JPEG loses detail, so never compare scores of these images with
those of CIFAR-10.

The numbers of channels here fit two cores of a CPU, and the learning rate fits
few steps. The paper's settings, for a GPU, are:

  g_channels=256,d_channels=128,d_steps=5,steps=50000,learning_rate=2e-4

docs/results.md has scores of this network, a DCGAN and a VAE, each after a
short training.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top; it has to say dir."""
  config = base(
    experiment='cifar_jpeg',
    model='resnet',
    source='folder',
    image_size=32,
    steps=10_000,
    channels=32,
    latent_dim=128,
    batch_size=64,
    g_norm='batch',
    loss='hinge',
    penalty='none',
    spectral_norm=True,
    b1=0.0,
    b2=0.9,
    learning_rate_decay='linear',
    eval_every=2_000,
  )
  return override(config, arg)


def sweep(add):
  """Float against four mixtures of widths, weights first."""
  for w_bits, a_bits in ((32, 32), (8, 8), (4, 8), (4, 4), (2, 8)):
    add(f'w_bits={w_bits},a_bits={a_bits},seed=0')
