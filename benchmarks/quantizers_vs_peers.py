"""Compares our quantizers with PyTorch's, torchao's and Brevitas's.

  pip install -e '.[peers]'
  python benchmarks/quantizers_vs_peers.py

Each pair gets the same random tensor, the same parameters and the same
incoming gradient. Printed are the largest differences of x̂, of x's gradient
and of the learned scale's gradient, relative to the largest value; the scale's
gradient is a sum, and is compared relative to the sum of its terms' magnitudes.
Exit code 1 where one is above 1e-6.
"""

import argparse
from collections.abc import Callable, Iterator
import importlib.util
from pathlib import Path
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from measuring import save, say, start_record
import numpy as np
from rich.table import Table
import torch

from qgan_jax import quantizers
from qgan_jax.quantizers.base import Params

TOLERANCE = 1e-6
WIDTHS = (2, 3, 4, 8)
SHAPE = (48, 32)
# A peer's arguments are tensors: x and then its learned parameters.
Peer = Callable[..., torch.Tensor]


class Case(NamedTuple):
  """One quantizer and a peer's.

  Attributes:
    name: of ours.
    peer: what it is compared with.
    bits: of both.
    params: of ours.
    learned: which of them the peer learns too, in the peer's order.
    function: the peer's.
    x: what both quantize.
    gradients: whether the peer has any.
  """

  name: str
  peer: str
  bits: int
  params: Params
  learned: tuple[str, ...]
  function: Peer
  x: np.ndarray
  gradients: bool = True


def signed_ends(bits: int) -> tuple[int, int]:
  return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def torch_cases(x: np.ndarray) -> Iterator[Case]:
  """PyTorch's own fake quantization."""
  for bits in WIDTHS:
    top = 2 ** (bits - 1) - 1
    for name in ('uniform', 'power_of_two_scale', 'uniform_mse'):
      params = quantizers.by_name(name).fit(x, bits)
      # Halved, so that there is something to clip.
      params = {'scale': params['scale'] / 2}
      scale = float(params['scale'])

      def fixed(x, scale=scale, top=top):
        return torch.fake_quantize_per_tensor_affine(x, scale, 0, -top, top)

      peer = 'torch.fake_quantize_per_tensor_affine'
      yield Case(name, peer, bits, params, (), fixed, x)

    params = quantizers.by_name('affine').fit(x, bits)
    fit = float(params['scale']), int(params['zero_point'])

    def affine(x, fit=fit, bits=bits):
      return torch.fake_quantize_per_tensor_affine(x, *fit, 0, 2**bits - 1)

    peer = 'torch.fake_quantize_per_tensor_affine'
    yield Case('affine', peer, bits, params, (), affine, x)

    params = quantizers.by_name('uniform', axis=-1).fit(x, bits)
    scales = torch.tensor(np.asarray(params['scale'])[0])

    def channels(x, scales=scales, top=top):
      zeros = torch.zeros(len(scales), dtype=torch.int32)
      return torch.fake_quantize_per_channel_affine(
        x, scales, zeros, 1, -top, top
      )

    peer = 'torch.fake_quantize_per_channel_affine'
    yield Case('uniform', peer, bits, params, (), channels, x)

    yield from learned_cases(x, bits)


def learned_cases(x: np.ndarray, bits: int) -> Iterator[Case]:
  """LSQ, in PyTorch and in Brevitas.

  Both clip the code, LSQ clips the value: they differ in whether the half step
  beyond the outermost levels is clipped. No value of the comparison lies there.
  """
  params = quantizers.by_name('lsq').fit(x, bits)
  params['scale'] = params['scale'] / 2
  low, high = signed_ends(bits)
  steps = x / float(params['scale'])
  between = (np.abs(steps - low) < 0.501) | (np.abs(steps - high) < 0.501)
  x = np.where(between, np.float32(0.3) * params['scale'], x)
  x = np.asarray(x, np.float32)
  rate = 1 / np.sqrt(x.size * high)

  def learnable(x, scale):
    return torch._fake_quantize_learnable_per_tensor_affine(
      x, scale, torch.zeros(1), low, high, rate
    )

  peer = 'torch._fake_quantize_learnable_per_tensor_affine'
  yield Case('lsq', peer, bits, params, ('scale',), learnable, x)
  if importlib.util.find_spec('brevitas') is None:
    return
  from brevitas.core.function_wrapper import RoundSte, TensorClamp
  from brevitas.core.quant import IntQuant

  quant = IntQuant(
    narrow_range=False,
    signed=True,
    input_view_impl=torch.nn.Identity(),
    float_to_int_impl=RoundSte(),
    tensor_clamp_impl=TensorClamp(),
  )

  def brevitas(x, scale):
    # Brevitas has no such factor for the gradient of the scale.
    slow = scale * rate + (scale - scale * rate).detach()
    return quant(slow, torch.zeros(1), torch.tensor(float(bits)), x)

  yield Case('lsq', 'brevitas IntQuant', bits, params, ('scale',), brevitas, x)


def float_cases(x: np.ndarray) -> Iterator[Case]:
  """PyTorch's FP8 and torchao's MX."""
  for name in ('fp8_e4m3', 'fp8_e5m2'):
    params = quantizers.by_name(name).fit(x, 8)
    dtype = {
      'fp8_e4m3': torch.float8_e4m3fn,
      'fp8_e5m2': torch.float8_e5m2,
    }[name]
    scale = float(params['scale'])

    def cast(x, scale=scale, dtype=dtype):
      return (x / scale).to(dtype).to(torch.float32) * scale

    yield Case(name, str(dtype), 8, params, (), cast, x, gradients=False)
  if importlib.util.find_spec('torchao') is None:
    return
  from torchao.prototype.mx_formats.mx_tensor import MXTensor

  for name, element in (
    ('mxfp8_e4m3', torch.float8_e4m3fn),
    ('mxfp8_e5m2', torch.float8_e5m2),
    ('mxfp4', torch.float4_e2m1fn_x2),
  ):
    quantizer = quantizers.by_name(name)

    def blocks(x, element=element):
      return MXTensor.to_mx(x, element, 32).dequantize(torch.float32)

    yield Case(
      name,
      'torchao MXTensor, FLOOR',
      quantizer.fixed_bits or 0,
      quantizer.fit(x, 8),
      (),
      blocks,
      x,
      gradients=False,
    )


def compare(case: Case) -> dict[str, Any]:
  """The differences of one pair."""
  axis = -1 if 'per_channel' in case.peer else None
  quantizer = quantizers.by_name(case.name, axis=axis)
  g = np.random.RandomState(1).randn(*case.x.shape).astype(np.float32)
  y, back = jax.vjp(
    lambda x, params: quantizer.apply(x, params, jnp.float32(case.bits)),
    jnp.asarray(case.x),
    case.params,
  )
  gx, gparams = back(jnp.asarray(g))
  tensors = [torch.tensor(case.x, requires_grad=case.gradients)]
  tensors += [
    torch.tensor(np.asarray(case.params[name]).reshape(1), requires_grad=True)
    for name in case.learned
  ]
  theirs = case.function(*tensors)
  pairs = {'output': (y, theirs.detach())}
  if case.gradients:
    theirs.backward(torch.tensor(g))
    pairs['x_gradient'] = gx, tensors[0].grad
    for name, tensor in zip(case.learned, tensors[1:], strict=True):
      pairs[f'{name}_gradient'] = gparams[name], tensor.grad
  row: dict[str, Any] = {
    'quantizer': case.name,
    'peer': case.peer,
    'bits': case.bits,
  }
  units = {
    key: np.abs(np.asarray(ours)).max() for key, (ours, _) in pairs.items()
  }
  # One value at a time: the terms of the learned params' gradients.
  terms = jax.vmap(back)(jnp.diag(jnp.ravel(g)).reshape(-1, *g.shape))[1]
  for name in case.learned:
    units[f'{name}_gradient'] = np.abs(terms[name]).sum()
  for key, (ours, other) in pairs.items():
    difference = np.ravel(np.asarray(ours)) - np.ravel(other.numpy())
    row[key] = float(np.abs(difference).max() / units[key])
  return row


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', type=Path, help='folder for a JSON file')
  args = parser.parse_args()
  record = start_record(('jax', 'jaxlib', 'torch', 'torchao', 'brevitas'))
  x = np.random.RandomState(0).randn(*SHAPE).astype(np.float32)
  record['rows'] = rows = [
    compare(case) for cases in (torch_cases, float_cases) for case in cases(x)
  ]
  table = Table(caption='largest relative difference')
  columns = ('quantizer', 'peer', 'bits')
  kinds = ('output', 'x_gradient', 'scale_gradient')
  for title in (*columns, *kinds):
    table.add_column(title)
  for row in rows:
    table.add_row(
      *(str(row[key]) for key in columns),
      *(f'{row[key]:.1g}' if key in row else '' for key in kinds),
    )
  say(table)
  save(record, args.out, 'quantizers_vs_peers')
  worst = max(row.get(key, 0.0) for row in rows for key in kinds)
  say(f'{len(rows)} comparisons, the largest difference is {worst:.1g}')
  if not worst <= TOLERANCE:
    sys.exit(f'above {TOLERANCE:.0e}')


if __name__ == '__main__':
  main()
