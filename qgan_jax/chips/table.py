"""Chips that programs can be compiled for, and their published peak rates."""

from typing import NamedTuple


class Chip(NamedTuple):
  """A kind of chip; rates are of a whole chip, at their peak.

  Attributes:
    name: as it is asked for.
    backend: JAX's name of what drives it, 'tpu' or 'gpu'.
    kind: how JAX's devices call themselves, or how that begins.
    flops: a second, of bfloat16 products summed in float32. JAX computes
      products of float32 so on a TPU unless told otherwise, and in TF32, at
      half this rate, on a GPU.
    memory: bytes.
    bandwidth: bytes a second from and to that memory.
    link: bytes a second that it sends to other chips.
    clock: Hz, where published; the compiler counts in cycles.
    source: where the numbers are from.
  """

  name: str
  backend: str
  kind: str
  flops: float
  memory: float
  bandwidth: float
  link: float
  clock: float | None
  source: str


_CLOUD = 'docs.cloud.google.com/tpu/docs'
CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      'v4',
      'tpu',
      'TPU v4',
      flops=275e12,
      memory=32 * 2**30,
      bandwidth=1228e9,
      link=300e9,
      clock=1.05e9,
      source=f'{_CLOUD}/v4; Jouppi et al. 2023, arXiv:2304.01433',
    ),
    Chip(
      'v5e',
      'tpu',
      'TPU v5 lite',
      flops=197e12,
      memory=16 * 2**30,
      bandwidth=819e9,
      link=200e9,
      # 197 TFLOPs are four units of 128×128 at two operations each.
      clock=1.5e9,
      source=f'{_CLOUD}/v5e',
    ),
    Chip(
      'v5p',
      'tpu',
      'TPU v5',
      flops=459e12,
      memory=95 * 2**30,
      bandwidth=2765e9,
      link=600e9,
      # 459 TFLOPs are two cores of four units of 128×128.
      clock=1.75e9,
      source=f'{_CLOUD}/v5p',
    ),
    Chip(
      'v6e',
      'tpu',
      'TPU v6 lite',
      flops=918e12,
      memory=32 * 2**30,
      bandwidth=1638e9,
      link=400e9,
      # 918 TFLOPs are four units of 256×256.
      clock=1.75e9,
      source=f'{_CLOUD}/v6e',
    ),
    Chip(
      'tpu7x',
      'tpu',
      'TPU7x',
      flops=2307e12,
      memory=192 * 2**30,
      bandwidth=7380e9,
      link=600e9,
      clock=None,
      source=f'{_CLOUD}/tpu7x',
    ),
    Chip(
      'h100',
      'gpu',
      'NVIDIA H100',
      flops=989e12,
      memory=80e9,
      bandwidth=3352e9,
      link=450e9,
      clock=None,
      source='nvidia.com/en-us/data-center/h100, SXM, without sparsity',
    ),
  )
}


def of_kind(kind: str) -> Chip | None:
  """The chip that calls itself so, or None of those that are known."""
  found = [chip for chip in CHIPS.values() if kind.startswith(chip.kind)]
  return max(found, key=lambda chip: len(chip.kind), default=None)
