"""Mixed precision: chooses the bits of every layer for a given total size.

HAWQ (Dong et al., https://arxiv.org/abs/1905.03696) estimates from curvature
what an error in a layer's weights costs. Networks as small as these can be
measured directly instead, one layer and one width at a time.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from qgan_jax.post_training.watch import batches
from qgan_jax.post_training.weights import fit_weights
from qgan_jax.precision import FLOAT_BITS, Quantized

WIDTHS = (1, 2, 3, 4, 5, 6, 8)


class Sensitivity(NamedTuple):
  """The error that one layer's weights cause at one width.

  Attributes:
    layer: module path.
    bits: width of this layer's weights; all other layers are in float.
    error: mean squared change of the network's output, divided by the variance
      of the output; of several outputs, over the values of all.
    size: of the layer's codes, in bytes.
  """

  layer: str
  bits: int
  error: float
  size: float


def sensitivity(
  network: Quantized,
  *args: Any,
  widths: Iterable[int] = WIDTHS,
  batch_size: int = 64,
) -> list[Sensitivity]:
  """Measures how the output changes when one layer at a time is quantized.

  Args:
    network: its `precision` gives the quantizers; its `bits` are not used.
    *args: calibration inputs [N, …].
    widths: widths to try; those that a layer's quantizer does not support are
      skipped.
    batch_size: number of inputs in one call of the network.

  Returns:
    One row for every layer and width.
  """
  parts = batches(args, batch_size)
  flat = traverse_util.flatten_dict(network.variables['params'])
  weights = {
    path: w
    for keys, w in flat.items()
    if (path := network.precision.weight_path(keys, w)) is not None
  }
  run = network.with_float_activations()

  @jax.jit
  def output(params, args):
    # An encoder gives two arrays, a mean and a variance.
    parts = jax.tree.leaves(run.run(params, *args))
    return jnp.concatenate([part.ravel() for part in parts])

  # A pruned network is compared with itself in float, pruned.
  params = network.in_float().weights(network.variables['params'])
  expected = [output(params, part) for part in parts]
  variance = float(np.var(np.concatenate([np.asarray(y) for y in expected])))
  rows = []
  for layer, w in weights.items():
    spec = network.precision.spec('weights', layer)
    if spec is None:
      continue
    possible = spec.quantizer.widths
    for bits in (n for n in widths if n in possible):
      chosen = {path: jnp.float32(FLOAT_BITS) for path in weights}
      chosen[layer] = jnp.float32(bits)
      one = fit_weights(
        run.replace(bits=run.bits._replace(weights=chosen), learned={})
      )
      quantized = one.weights(params)
      errors = [
        float(jnp.mean(jnp.square(output(quantized, part) - y)))
        for part, y in zip(parts, expected, strict=True)
      ]
      error = sum(errors) / len(errors) / variance
      rows.append(Sensitivity(layer, bits, error, w.size * bits / 8))
  return rows


def allocate(rows: Iterable[Sensitivity], size: float) -> dict[str, int]:
  """Chooses bits for every layer: the least error within a given size.

  The errors of layers are added up, which is right to first order. Starting
  from the smallest widths, it repeatedly makes the change of width that removes
  most error per byte, as long as the result fits. This is optimal where errors
  are a convex function of bytes, as they are here.

  Args:
    rows: as `sensitivity` returns them.
    size: limit for all codes together, in bytes.

  Returns:
    Bits by module path.

  Raises:
    ValueError: not even the smallest widths fit.
  """
  steps: dict[str, list[Sensitivity]] = {}
  for row in sorted(rows, key=lambda row: row.bits):
    ladder = steps.setdefault(row.layer, [])
    # A width that is no better than a smaller one is no choice.
    if not ladder or row.error < ladder[-1].error:
      ladder.append(row)
  chosen = {layer: ladder[0] for layer, ladder in steps.items()}
  left = size - sum(row.size for row in chosen.values())
  if left < 0:
    raise ValueError(
      f'{size:,.0f} bytes are too few: the smallest widths take '
      f'{size - left:,.0f}'
    )

  def gains(chosen: Mapping[str, Sensitivity]):
    for layer, now in chosen.items():
      for row in steps[layer]:
        if now.size < row.size <= now.size + left:
          yield (now.error - row.error) / (row.size - now.size), row

  while candidates := list(gains(chosen)):
    _, best = max(candidates, key=lambda pair: (pair[0], -pair[1].size))
    left -= best.size - chosen[best.layer].size
    chosen[best.layer] = best
  return {layer: row.bits for layer, row in chosen.items()}


def rules_of(bits: dict[str, dict[str, int]]) -> str:
  """Writes bits of layers as precision rules.

  Args:
    bits: by network and layer, for weights.
  """
  return '; '.join(
    f'{network}/weights/{layer}: bits={n}'
    for network, layers in bits.items()
    for layer, n in layers.items()
  )


def allocate_bits(
  rows: dict[str, list[Sensitivity]], mean_bits: float
) -> dict[str, dict[str, int]]:
  """Bits by network and layer, for a given average of bits per weight."""
  allocation = {}
  for network, found in rows.items():
    # Of each layer, the bytes of a bit a weight: from any of its rows.
    one_bit = {row.layer: row.size / row.bits for row in found}
    allocation[network] = allocate(found, mean_bits * sum(one_bit.values()))
  return allocation


def format_allocation(
  rows: dict[str, list[Sensitivity]], bits: dict[str, dict[str, int]]
) -> str:
  """A table of the error of each layer at each width, and the bits chosen."""
  lines = ['error of the output, relative, with this layer alone quantized:']
  widths = sorted({row.bits for found in rows.values() for row in found})
  lines.append(
    f'{"layer":28}' + ''.join(f'{n:>10} b' for n in widths) + '   chosen'
  )
  for network, found in rows.items():
    for layer, chosen in bits[network].items():
      errors_ = {row.bits: row.error for row in found if row.layer == layer}
      cells = ''.join(f'{errors_[n]:>12.2e}' for n in widths)
      lines.append(f'{network + "/" + layer:28}{cells}   {chosen} bits')
  return '\n'.join(lines)
