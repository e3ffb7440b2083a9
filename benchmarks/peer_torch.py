"""The benchmark's networks and step as one writes them in PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qgan_jax.models.dcgan import stage_sizes

Params = Mapping[str, Any]


class Generator(nn.Module):
  """Latents [B, latent_dim] to images [B, 1, S, S]."""

  def __init__(self, image_size: int, channels: int, latent_dim: int):
    super().__init__()
    self.sizes = [side for side, _ in stage_sizes(image_size)[-2::-1]]
    widths = [channels << i for i in reversed(range(len(self.sizes)))]
    self.project = nn.ConvTranspose2d(latent_dim, widths[0], 4, bias=False)
    self.norms = nn.ModuleList(
      nn.GroupNorm(width // 8, width, eps=1e-6) for width in widths
    )
    self.ups = nn.ModuleList(
      nn.ConvTranspose2d(i, o, 4, 2, 1)
      for i, o in zip(widths, [*widths[1:], 1], strict=True)
    )

  def forward(self, latents: torch.Tensor) -> torch.Tensor:
    """Draws images."""
    x = self.project(latents[:, :, None, None])
    for norm, up, size in zip(self.norms, self.ups, self.sizes, strict=True):
      x = up(functional.relu(norm(x)))[:, :, :size, :size]
    return torch.tanh(x.float())


class Discriminator(nn.Module):
  """Images [B, 1, S, S] to logits [B]."""

  def __init__(self, image_size: int, channels: int):
    super().__init__()
    sizes = [side for side, _ in stage_sizes(image_size)[:-1]]
    widths = [1] + [channels << i for i in range(len(sizes))]
    self.downs = nn.ModuleList()
    for size, i, o in zip(sizes, widths[:-1], widths[1:], strict=True):
      if size % 2:  # SAME pads an odd side by 1 before and 2 after.
        pad = nn.ZeroPad2d((1, 2, 1, 2))
        self.downs.append(nn.Sequential(pad, nn.Conv2d(i, o, 4, 2)))
      else:
        self.downs.append(nn.Sequential(nn.Conv2d(i, o, 4, 2, 1)))
    self.logit = nn.Linear(16 * widths[-1], 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Judges images."""
    for down in self.downs:
      x = functional.leaky_relu(down(x), 0.2)
    return self.logit(x.flatten(1))[:, 0].float()


def _set(parameter: Any, value: np.ndarray) -> None:
  if parameter.shape != value.shape:
    raise ValueError(f'{tuple(parameter.shape)} takes no {value.shape}')
  with torch.no_grad():
    parameter.copy_(torch.tensor(np.ascontiguousarray(value)))


def load_generator(generator: Generator, params: Params) -> None:
  """Copies the parameters of `qgan_jax.models.dcgan.Generator`, on the host."""

  def transposed(kernel: np.ndarray) -> np.ndarray:
    # PyTorch's layer is a convolution's adjoint; Flax's does not flip kernels.
    return kernel[::-1, ::-1].transpose(2, 3, 0, 1)

  _set(generator.project.weight, transposed(params['project']['kernel']))
  for i, (norm, up) in enumerate(
    zip(generator.norms, generator.ups, strict=True)
  ):
    _set(norm.weight, params[f'GroupNorm_{i}']['scale'])
    _set(norm.bias, params[f'GroupNorm_{i}']['bias'])
    _set(up.weight, transposed(params[f'up{i}']['kernel']))
    _set(up.bias, params[f'up{i}']['bias'])


def load_flax(
  generator: Generator, discriminator: Discriminator, g: Params, d: Params
) -> None:
  """Copies the parameters of the Flax networks.

  Args:
    generator: G.
    discriminator: D.
    g: parameters of `qgan_jax.models.dcgan.Generator`, NumPy arrays.
    d: parameters of `qgan_jax.models.dcgan.Discriminator`.
  """
  load_generator(generator, g)
  downs: Any = discriminator.downs
  for i, down in enumerate(downs):
    _set(down[-1].weight, d[f'down{i}']['kernel'].transpose(3, 2, 0, 1))
    _set(down[-1].bias, d[f'down{i}']['bias'])
  kernel = d['logit']['kernel'][..., 0]
  _set(discriminator.logit.weight, kernel.transpose(2, 0, 1).reshape(1, -1))
  _set(discriminator.logit.bias, d['logit']['bias'])


def make_step(
  generator: Generator,
  discriminator: Discriminator,
  images: np.ndarray,
  *,
  device: str,
  dtype: str,
  channels_last: bool,
  compiled: bool,
  latent_dim: int,
  learning_rate: float,
  b1: float,
  b2: float,
  ema_decay: float,
) -> Callable[[], None]:
  """Makes a function that takes one training step and waits for it.

  Args:
    generator: G; trained in place.
    discriminator: D; trained in place.
    images: the batch, uint8 [B, S, S, 1].
    device: 'cpu' or 'cuda'.
    dtype: 'float32', or 'bfloat16' for autocast.
    channels_last: whether weights and images have that memory format.
    compiled: whether both networks go through `torch.compile`.
    latent_dim: length of a latent.
    learning_rate: Adam's.
    b1: Adam's.
    b2: Adam's.
    ema_decay: of the moving average of G's parameters.

  Returns:
    The function.
  """
  layout = torch.channels_last if channels_last else torch.contiguous_format
  g: Any = generator
  d: Any = discriminator
  g.to(device, memory_format=layout)
  d.to(device, memory_format=layout)
  batch = torch.tensor(images.transpose(0, 3, 1, 2).copy(), device=device)
  batch = batch.contiguous(memory_format=layout)
  # The fused Adam is the fastest of PyTorch's.
  adam: dict[str, Any] = {'lr': learning_rate, 'betas': (b1, b2), 'fused': True}
  g_optimizer = torch.optim.Adam(generator.parameters(), **adam)
  d_optimizer = torch.optim.Adam(discriminator.parameters(), **adam)
  average = AveragedModel(
    generator, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)
  )
  if compiled:
    g = torch.compile(generator, dynamic=False)
    d = torch.compile(discriminator, dynamic=False)
  softplus = functional.softplus

  def step() -> None:
    with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16'):
      latents = torch.randn(len(batch), latent_dim, device=device)
      real = batch.float() / 127.5 - 1
      fake = g(latents)
      d_loss = softplus(-d(real)).mean() + softplus(d(fake.detach())).mean()
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()
    # D is frozen, so that gradients of its kernels are not computed here.
    discriminator.requires_grad_(False)
    with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16'):
      g_loss = softplus(-d(fake)).mean()
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
    discriminator.requires_grad_(True)
    average.update_parameters(generator)
    if device == 'cuda':
      torch.cuda.synchronize()

  return step
