"""R3GAN on MNIST, 28×28 grey: no normalization, relativistic, R1 and R2.

  python -m qgan_jax.main --config=r3gan_mnist:bits=8,seed=0

No run has been long enough to be measured. With channels=16,batch_size=16 one
core of an AMD EPYC takes 3 to 4.5 steps a second in float, after two minutes of
compilation; 2,000 of them (learning_rate=5e-4) draw a few shapes that are no
digits yet, at a Fréchet distance of 226.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  config = base(
    experiment='r3gan_mnist',
    source='mnist',
    model='r3gan',
    channels=32,
    steps=8_000,
    loss='relativistic',
    penalty='r1_r2',
    learning_rate=2e-4,
    b1=0.0,
    b2=0.99,
    learning_rate_decay='cosine',
  )
  return override(config, arg)


def sweep(add):
  """Float against four mixtures of widths, weights first."""
  for w_bits, a_bits in ((32, 32), (8, 8), (4, 8), (4, 4), (2, 8)):
    add(f'w_bits={w_bits},a_bits={a_bits},seed=0')
