"""MX: blocks of small numbers that share a power of two as their scale."""

import math

import jax
import jax.numpy as jnp

from qgan_jax.quantizers.base import Array, Axis, Params, Quantizer
from qgan_jax.quantizers.float_formats import (
  FloatFormat,
  from_float_codes,
  to_float_codes,
)
from qgan_jax.quantizers.ranges import floor_log2, positive, power_of_two
from qgan_jax.quantizers.straight_through import straight_through

BLOCK = 32


def _axes(ndim: int, axis: Axis) -> tuple[list[int], list[int]]:
  """(axes whose every index is a row of its own, axes along the rows)."""
  if axis is None:
    return list(range(ndim - 1)), list(range(ndim))[-1:]
  own = (axis,) if isinstance(axis, int) else axis
  rows = sorted(i % ndim for i in own)
  return rows, [i for i in range(ndim) if i not in rows]


def _to_rows(x: Array, axis: Axis) -> Array:
  """A tensor as [rows, length]: blocks run along the length."""
  rows, along = _axes(x.ndim, axis)
  length = math.prod(x.shape[i] for i in along)
  height = math.prod(x.shape[i] for i in rows)
  return x.transpose(rows + along).reshape(height, length)


def _from_rows(rows: Array, shape: tuple[int, ...], axis: Axis) -> Array:
  order = sum(_axes(len(shape), axis), [])
  moved = rows.reshape([shape[i] for i in order])
  return moved.transpose([order.index(i) for i in range(len(shape))])


def mx(number: FloatFormat, *, axis: Axis = None) -> Quantizer:
  """Blocks of 32 values share the scale 2^(floor(log2 max|x|) − emax).

  Rouhani et al., https://arxiv.org/abs/2310.10537, algorithm 1, and the OCP
  Microscaling specification 1.0: elements saturate, ties go to even. x̂ / scale
  is bit for bit what `ml_dtypes` rounds x / scale to. The least exponent of the
  scale is −126, and not E8M0's −127, since float32 holds 2⁻¹²⁷ only as a
  denormal. Straight-through everywhere. `bits` is ignored: the format has its
  own.

  Args:
    number: the elements' format.
    axis: None for blocks along the last axis, for a layer's input, whose
      channels are multiplied and summed. Otherwise the axis (or axes) of a
      kernel's output channels: blocks then lie within each index of it, along
      all other axes in their order.
      The last block of a row may be shorter.

  Returns:
    A `Quantizer` whose params have a scale for each block, [rows, blocks].
  """

  def spread(scale: Array, length: int) -> Array:
    return jnp.repeat(scale, BLOCK, axis=1)[:, :length]

  def fit(x: Array, bits: Array) -> Params:
    del bits
    rows = _to_rows(jax.lax.stop_gradient(x).astype(jnp.float32), axis)
    blocks = -(-rows.shape[1] // BLOCK)
    rows = jnp.pad(jnp.abs(rows), ((0, 0), (0, blocks * BLOCK - rows.shape[1])))
    top = rows.reshape(rows.shape[0], blocks, BLOCK).max(2, initial=0.0)
    exponent = floor_log2(positive(top)) - number.greatest_exponent
    return {'scale': power_of_two(exponent)}

  def encode(x: Array, params: Params, bits: Array) -> Array:
    del bits
    rows = _to_rows(x.astype(jnp.float32), axis)
    rows = rows / spread(params['scale'], rows.shape[1])
    return _from_rows(to_float_codes(rows, number), x.shape, axis)

  def decode(codes: Array, params: Params, bits: Array) -> Array:
    del bits
    rows = _to_rows(codes, axis)
    rows = from_float_codes(rows, number) * spread(
      params['scale'], rows.shape[1]
    )
    return _from_rows(rows, codes.shape, axis)

  def apply(
    x: Array, params: Params, bits: Array, key: Array | None = None
  ) -> Array:
    del key
    y = decode(encode(x, params, bits), params, bits)
    return straight_through(x, y, jnp.ones(()))

  return Quantizer(
    fit,
    None,
    apply,
    encode,
    decode,
    fixed_bits=number.bits,
    of_rows=True,
  )
