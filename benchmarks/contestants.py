"""The contestants of `train_step.py`: ours, and what it is compared with."""

import copy
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from measuring import Step
import numpy as np
import peer_flax

from qgan_jax import config, data
from qgan_jax.models.dcgan import stage_sizes
from qgan_jax.runs import build
from qgan_jax.training import devices

PyTree = Any
BATCH_SIZE = 64
LATENT_DIM = 64
TRAINING: dict[str, Any] = {'learning_rate': 2e-4, 'b1': 0.5, 'b2': 0.99}
EMA_DECAY = 0.999
TORCH = 'PyTorch eager'


class Ours:
  """Our step, built from a config as a training run builds it.

  Like its peers it quantizes between a tensor's minimum and maximum; with
  `learned` it has the default quantizers, which learn their scales.
  """

  def __init__(
    self,
    dataset: data.ImageDataset,
    channels,
    bits,
    dtype,
    *,
    learned: bool = False,
  ):
    precision = {} if learned else {'quantizer': 'uniform', 'ranges': 'moving'}
    resolved = config.resolve(
      config.base(
        experiment='train_step',
        # Given even where they are the defaults: the peers do exactly this.
        loss='nonsaturating',
        penalty='none',
        optimizer='adam',
        d_steps=1,
        g_norm='group',
        d_norm='none',
        batch_size=BATCH_SIZE,
        bits=bits,
        start_step=0,
        channels=channels,
        dtype=dtype,
        latent_dim=LATENT_DIM,
        steps_per_call=1,
        ema=EMA_DECAY,
        **TRAINING,
        **precision,
      )
    )
    setup = build.set_up(resolved, dataset, devices.make_layout(1))
    start = setup.init_state()
    names = ('generator', 'discriminator')
    self.params = tuple(start.networks[name].params for name in names)
    self.modules = tuple(setup.networks[name].module for name in names)
    self._program = setup.program()
    self._state = self._program.put([start])
    self._batches = data.Batches(dataset.train_images, None, 0, BATCH_SIZE)
    self._batch = self._program.shard([self._host_batch(0)])

  def _host_batch(self, step: int) -> dict[str, np.ndarray]:
    return {'images': self._batches.at(step)[0][None, None]}

  def step(self) -> None:
    """Takes one step on the same batch and waits for it."""
    self._state, metrics = self._program(self._state, self._batch)
    jax.block_until_ready((self._state, metrics))

  def example(self, images: np.ndarray) -> tuple[Any, ...]:
    """What a peer has to reproduce.

    Args:
      images: uint8 [B, S, S, 1].

    Returns:
      (parameters of G and D at which every layer, biases too, shows in the
      output; latents; real images; (fakes, logits of the real images)).
    """
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), self.params
    )
    latents = rng.normal(size=(8, LATENT_DIM)).astype(np.float32)
    real = images[:8] / np.float32(255)
    outputs = tuple(
      jax.jit(module.apply)({'params': p}, x)
      for module, p, x in zip(
        self.modules, params, (latents, real), strict=True
      )
    )
    return params, latents, real, outputs

  def data_cost(self, steps: int) -> dict[str, float]:
    """What data costs a loop that does not wait for each step, as in training.

    Args:
      steps: how many to take.

    Returns:
      'step_ms'; 'host_ms', the median time to gather a batch and to hand it
      to the device, which a thread does while the device works; 'host_share',
      its share of a step; 'exposed_share', the share of all the time in which
      the loop waits for a batch and the device has nothing left to do.
    """
    host: list[float] = []
    waited = 0.0
    metrics = None

    def make(step: int) -> Any:
      start = time.perf_counter()
      batch = self._program.shard([self._host_batch(step)])
      host.append(time.perf_counter() - start)
      return batch

    begin = time.perf_counter()
    feed = data.prefetched(make, range(steps))
    for _ in range(steps):
      start = time.perf_counter()
      batch = next(feed)
      if metrics is None or metrics[0].is_ready():
        waited += time.perf_counter() - start
      self._state, metrics = self._program(self._state, batch)
    jax.block_until_ready((self._state, metrics))
    total = time.perf_counter() - begin
    return {
      'step_ms': 1e3 * total / steps,
      'host_ms': 1e3 * statistics.median(host),
      'host_share': statistics.median(host) * steps / total,
      'exposed_share': waited / total,
    }


def step_flops(size: int, channels: int) -> int:
  """2 · the multiply-adds of a step's products, none counted twice.

  A kernel's and an input's gradient cost what the forward pass costs. D runs
  on real and fake images for its own update and once more for G's, which
  needs no gradient of D's kernels; neither network's own input needs one,
  but the fake images do in G's update.
  """
  sizes = [side for side, _ in stage_sizes(size)]
  widths = [1] + [channels << i for i in range(len(sizes) - 1)]
  convs = [
    16 * i * o * s * s
    for i, o, s in zip(widths[:-1], widths[1:], sizes[1:], strict=True)
  ]
  project, logit = 16 * LATENT_DIM * widths[-1], 16 * widths[-1]
  g, d = sum(convs) + project, sum(convs) + logit
  macs = (2 * g + sum(convs)) + 2 * (3 * d - convs[0]) + 2 * d
  return 2 * BATCH_SIZE * macs


def make_dot(dtype: str) -> tuple[Step, int]:
  """A product of square matrices, and its flops."""
  n = 1024 if jax.default_backend() == 'cpu' else 8192
  x = jax.random.normal(jax.random.PRNGKey(0), (n, n), dtype)
  product = jax.jit(jnp.dot)
  return lambda: jax.block_until_ready(product(x, x)), 2 * n**3


def check(
  name: str, ours: tuple[Any, ...], theirs: tuple[Any, ...], dtype: str
) -> None:
  """Refuses a peer whose images or logits are not ours."""
  exact = dtype == 'float32' and jax.default_backend() == 'cpu'
  tolerance = 1e-4 if exact else 5e-2  # A GPU's float32 may be TF32.
  for a, b in zip(ours, theirs, strict=True):
    error = np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(a).max()
    if not error <= tolerance:
      sys.exit(f'{name} is another network: relative error {error:.2g}')


def flax_step(
  ours: Ours, images: np.ndarray, channels: int, dtype: str
) -> Step:
  """Plain Flax's contestant."""
  g = peer_flax.Generator(images.shape[1], channels, jnp.dtype(dtype))
  d = peer_flax.Discriminator(channels, jnp.dtype(dtype))
  (g_params, d_params), latents, real, wanted = ours.example(images)
  found = (
    jax.jit(g.apply)({'params': g_params}, latents),
    jax.jit(d.apply)({'params': d_params}, real),
  )
  check('plain Flax', wanted, found, dtype)
  return peer_flax.make_step(
    g,
    d,
    *ours.params,
    images,
    latent_dim=LATENT_DIM,
    ema_decay=EMA_DECAY,
    **TRAINING,
  )


def torch_steps(
  ours: Ours,
  images: np.ndarray,
  channels: int,
  dtype: str,
  *,
  compiled: bool,
) -> dict[str, Step]:
  """PyTorch's contestants, 'name, layout', for both layouts in memory.

  Args:
    ours: what their network has to equal.
    images: the batch, uint8 [B, S, S, 1].
    channels: of the network.
    dtype: 'float32' or 'bfloat16'.
    compiled: whether `torch.compile` takes part.

  Returns:
    Their steps.
  """
  import peer_torch
  import torch

  torch.manual_seed(0)
  device = 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
  if device == 'cuda':
    torch.set_float32_matmul_precision('high')  # TF32, as JAX's default.
  g = peer_torch.Generator(images.shape[1], channels, LATENT_DIM)
  d = peer_torch.Discriminator(images.shape[1], channels)
  count = sum(x.size for x in jax.tree.leaves(ours.params))
  theirs = sum(p.numel() for n in (g, d) for p in n.parameters())
  if count != theirs:
    sys.exit(f'PyTorch has {theirs:,} parameters where we have {count:,}')
  params, latents, real, wanted = ours.example(images)
  peer_torch.load_flax(g, d, *params)
  with torch.no_grad():
    fake = g(torch.tensor(latents)).numpy().transpose(0, 2, 3, 1)
    logits = d(torch.tensor(real.transpose(0, 3, 1, 2).copy())).numpy()
  check('PyTorch', wanted, (fake, logits), dtype)
  peer_torch.load_flax(g, d, *ours.params)

  torch.compiler.reset()  # Else its limit on recompilations is reached.
  return {
    f'{name}, {layout}': peer_torch.make_step(
      copy.deepcopy(g),
      copy.deepcopy(d),
      images,
      device=device,
      dtype=dtype,
      channels_last=layout == 'channels_last',
      compiled=name != TORCH,
      latent_dim=LATENT_DIM,
      ema_decay=EMA_DECAY,
      **TRAINING,
    )
    for name in (TORCH, 'torch.compile')[: 1 + compiled]
    for layout in ('contiguous', 'channels_last')
  }
