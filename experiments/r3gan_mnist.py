"""R3GAN on MNIST, 28×28 grey: no normalization, relativistic, R1 and R2.

  python -m qgan_jax.main --config=r3gan_mnist:bits=8,seed=0

The numbers of channels and the batch size are for one core of a CPU. Without
normalization, D has to be held back by its penalties. After 2,000 steps in
float the Fréchet distance was

- 149 with penalty_weight and penalty_fraction as below,
- 151 with a weight of 20,
- 226 with a weight of 1 on an eighth of the batch, which are the defaults of
  other experiments.

docs/results.md has scores after 2,000 steps at five mixtures of bit widths, all
started from one float run of 8,000 steps.
"""

from qgan_jax.config import base, override


def get_config(arg=None):
  """The configuration, with a config string on top."""
  config = base(
    experiment='r3gan_mnist',
    source='mnist',
    model='r3gan',
    channels=16,
    steps=8_000,
    batch_size=16,
    loss='relativistic',
    penalty='r1_r2',
    penalty_weight=5.0,
    penalty_fraction=0.5,
    learning_rate=5e-4,
    b1=0.0,
    b2=0.99,
    learning_rate_decay='cosine',
  )
  return override(config, arg)


def sweep(add):
  """Float against four mixtures of widths, weights first."""
  for w_bits, a_bits in ((32, 32), (8, 8), (4, 8), (4, 4), (2, 8)):
    add(f'w_bits={w_bits},a_bits={a_bits},seed=0')
