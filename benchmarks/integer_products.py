"""What a chip's compiler makes of a quantized layer's product, in four ways.

  python benchmarks/integer_products.py --on=v5e:1 --out=benchmarks/results

Inputs and weights have 8 bits: whole codes times a scale. The product is

  values          of the codes times their scales, in float32, as training
                  multiplies them; a TPU rounds both to bfloat16 by default
  values, highest the same at JAX's precision 'highest', without that rounding
  codes, bfloat16 of the codes, which bfloat16 holds exactly, and then scaled
  codes, int8     of the codes as int8, summed as int32, and then scaled

Rounding to codes and scaling is in each of them; `float` is the layer without.
The chip need not be there (`pip install -e '.[preflight]'`). Cycles are the
compiler's estimate, which it tells for TPUs alone; the error is computed here,
from what the compiler is known to round, as is the type of the sums.
"""

from collections.abc import Callable
from pathlib import Path
import re
from typing import Any, NamedTuple

from absl import app, flags
import jax
from jax import lax
import jax.numpy as jnp
from measuring import save, say, start_record
import numpy as np
from rich.table import Table

from qgan_jax.chips import topologies

_ON = flags.DEFINE_string('on', 'v5e:1', 'One chip, as for preflight.')
_OUT = flags.DEFINE_string('out', None, 'Folder for the JSON.')
Array = jax.Array


class Layer(NamedTuple):
  """A convolution, or a dense layer with windows of one pixel."""

  name: str
  inputs: tuple[int, int, int, int]
  kernel: tuple[int, int, int, int]
  stride: int = 1


LAYERS = (
  Layer('DCGAN, batch 256, 14×14×64 → 7×7×128', (256, 14, 14, 64),
        (4, 4, 64, 128), 2),
  Layer('ResNet, batch 64, 32×32×128', (64, 32, 32, 128), (3, 3, 128, 128)),
  Layer('ResNet, batch 64, 16×16×256', (64, 16, 16, 256), (3, 3, 256, 256)),
  Layer('Dense, batch 4096, 1024 → 1024', (4096, 1, 1, 1024),
        (1, 1, 1024, 1024)),
)  # fmt: skip


def product(x: Array, w: Array, stride: int, **options: Any) -> Array:
  """The layer's product, without a bias."""
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    **options,
  )


def codes_of(x: Array, scale: Array) -> Array:
  """Codes from −128 to 127, in float32."""
  return jnp.clip(jnp.round(x / scale), -128, 127)


def by_values(x: Array, w: Array, a: Array, b: Array, stride: int) -> Array:
  """Of codes times scales."""
  return product(codes_of(x, a) * a, codes_of(w, b) * b, stride)


def by_exact_values(
  x: Array, w: Array, a: Array, b: Array, stride: int
) -> Array:
  """The same, with all digits of float32."""
  x, w = codes_of(x, a) * a, codes_of(w, b) * b
  return product(x, w, stride, precision=lax.Precision.HIGHEST)


def by_codes(dtype: Any, sums: Any) -> Callable[..., Array]:
  """Of codes in a type, summed in another."""

  def of_codes(x: Array, w: Array, a: Array, b: Array, stride: int) -> Array:
    x, w = codes_of(x, a).astype(dtype), codes_of(w, b).astype(dtype)
    y = product(x, w, stride, preferred_element_type=sums)
    return y.astype(jnp.float32) * (a * b)

  return of_codes


def in_float(x: Array, w: Array, a: Array, b: Array, stride: int) -> Array:
  """Of what is not quantized."""
  del a, b
  return product(x, w, stride)


WAYS: dict[str, Callable[..., Array]] = {
  'float': in_float,
  'values': by_values,
  'values, highest': by_exact_values,
  'codes, bfloat16': by_codes(jnp.bfloat16, jnp.float32),
  'codes, int8': by_codes(jnp.int8, jnp.int32),
}


def compiled(way: str, layer: Layer, device: jax.Device) -> dict[str, Any]:
  """What the chip's compiler says of a layer."""
  here = jax.sharding.SingleDeviceSharding(device)

  def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=here)

  call = jax.jit(WAYS[way], static_argnums=4)
  lowered = call.lower(
    shape(*layer.inputs),
    shape(*layer.kernel),
    shape(),
    shape(layer.kernel[-1]),
    layer.stride,
  )
  text = lowered.compile().as_text() or ''
  cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text)))
  found = re.search(
    r'= \(?(\w+)\[[^=]* (?:convolution|dot|custom-call)\(%([\w.\-]+),', text
  )
  assert found is not None
  operand = re.search(rf'%{re.escape(found[2])} = \(?(\w+)\[', text)
  if operand is None:  # A parameter of a fusion has its type in the head.
    operand = re.search(rf'{re.escape(found[2])}: (\w+)\[', text)
  return {
    'cycles': cycles or None,
    'multiplied': operand[1] if operand else None,
    'summed': found[1],
  }


def rounding_error() -> float:
  """Of products of values rounded to bfloat16, relative to exact ones (RMS)."""
  rng = np.random.default_rng(0)
  a, b = 0.0123, 0.00457
  x = np.clip(np.round(rng.normal(0, 40, (256, 512))), -128, 127) * a
  w = np.clip(np.round(rng.normal(0, 40, (512, 256))), -128, 127) * b
  rounded = [
    np.asarray(jnp.asarray(v, jnp.bfloat16), np.float64) for v in (x, w)
  ]
  exact = x @ w
  return float(np.std(rounded[0] @ rounded[1] - exact) / np.std(exact))


def main(argv: list[str]) -> None:
  """Compiles every layer in every way, and prints a table."""
  del argv
  machine = topologies.find(_ON.value)
  record = start_record(('jax', 'jaxlib', 'libtpu'), on=_ON.value)
  table = Table('layer', 'product', 'cycles (estimated)', 'to values', 'types')
  cases = []
  for layer in LAYERS:
    found = {way: compiled(way, layer, machine.devices[0]) for way in WAYS}
    base = found['values']['cycles']
    for way, told in found.items():
      cycles = told['cycles']
      table.add_row(
        layer.name if way == 'float' else '',
        way,
        f'{cycles:,}' if cycles else 'not told',
        f'{cycles / base:.2f}×' if cycles else '',
        f'{told["multiplied"]} → {told["summed"]}',
      )
      cases.append({'layer': layer.name, 'product': way, **told})
  say(table)
  error = rounding_error()
  say(
    f'values rounded to bfloat16: {error:.2%} of error in a product, computed'
  )
  save(
    record | {'cases': cases, 'rounding_error': error},
    Path(_OUT.value) if _OUT.value else None,
    f'integer_products-{_ON.value.replace(":", "-")}',
  )


if __name__ == '__main__':
  app.run(main)
