"""What is counted in a program, against one that is counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from qgan_jax.chips import program

TEXT = """
HloModule step, num_partitions=4

%fused (p.0: f32[2,3]) -> s8[2,3] {
  %p.0 = f32[2,3]{1,0:T(8,128)S(1)} parameter(0)
  %r.0 = f32[2,3]{1,0} round-nearest-even(%p.0)
  ROOT %c.0 = s8[2,3]{1,0} convert(%r.0)
}

%sum (a.0: f32[], a.1: f32[]) -> f32[] {
  %a.0 = f32[] parameter(0)
  %a.1 = f32[] parameter(1)
  ROOT %a.2 = f32[] add(%a.0, %a.1)
}

%body (b.0: (f32[4], s32[])) -> (f32[4], s32[]) {
  %b.0 = (f32[4]{0}, s32[]) parameter(0)
  %b.1 = f32[4]{0} get-tuple-element(%b.0), index=0
  %b.2 = s32[] get-tuple-element(%b.0), index=1
  %b.3 = f32[4]{0} multiply(%b.1, %b.1), backend_config={"estimated_cycles":"7"}
  ROOT %b.4 = (f32[4]{0}, s32[]) tuple(%b.3, %b.2)
}

%condition (d.0: (f32[4], s32[])) -> pred[] {
  %d.0 = (f32[4]{0}, s32[]) parameter(0)
  ROOT %d.1 = pred[] constant(true)
}

ENTRY %main (x: f32[2,3], y: (f32[4], s32[])) -> f32[5] {
  %x = f32[2,3]{1,0:T(8,128)} parameter(0)
  %y = (f32[4]{0}, /*index=1*/s32[]) parameter(1)
  %f = s8[2,3]{1,0} fusion(%x), kind=kLoop, calls=%fused, \
metadata={op_name="a(b)"}, \
backend_config={"window_config":{"estimated_cycles":"100"}}
  %w = (f32[4]{0}, s32[]) while(%y), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %z = f32[5]{0} constant({...})
  %s = (f32[5]{0}, f32[5]{0}) all-reduce-start(%z), to_apply=%sum
  ROOT %e = f32[5]{0} all-reduce-done(%s)
}
"""


def test_the_loop_over_the_steps_of_a_call_is_counted_once():
  assert program.read(TEXT, steps=5).kernels['multiply'] == 1
  assert program.read(TEXT, steps=4).kernels['multiply'] == 5


def test_of_a_data_set_a_batch_alone_is_read():
  def pick(rows, indices):
    return jnp.take(rows, indices, axis=0, mode='clip')

  rows = jax.ShapeDtypeStruct((1000, 128), jnp.uint8)
  indices = jax.ShapeDtypeStruct((4,), jnp.int32)
  text = jax.jit(pick).lower(rows, indices).compile().as_text()
  # A batch is read and written, and its four indices.
  assert sum(program.read(text).bytes.values()) <= 2 * 4 * 128 + 2 * 16


def test_kernels_are_counted_with_what_they_move():
  found = program.read(TEXT)
  # The loop's one kernel runs five times; a fusion is called by what it holds.
  assert found.kernels == {
    'round-nearest-even': 1,
    'multiply': 5,
    'all-reduce': 1,
  }
  assert found.bytes == {
    'round-nearest-even': 6 * 4 + 6,
    'multiply': 5 * 3 * 16,
    'all-reduce': 3 * 20,
  }
  assert found.cycles == {
    'round-nearest-even': 100,
    'multiply': 35,
    'all-reduce': 0,
  }
  assert (found.collectives, found.reduced) == (1, 20)
  assert found.made == 6 + 5 * 16 + 2 * 20
  assert found.operations['convert'] == 1
  assert found.operations['parameter'] == 7


@pytest.mark.parametrize('nested', [False, True])
def test_what_jax_compiles_is_read(nested):
  def f(x):
    y = jnp.sin(x) @ x
    if nested:
      y = jax.lax.fori_loop(0, 3, lambda i, y: jnp.sort(y, axis=0), y)
    return y

  x = jnp.zeros((8, 8))
  found = program.read(jax.jit(f).lower(x).compile().as_text())
  assert found.operations['dot'] >= 1 or 'custom-call' in found.operations
  assert found.kernels.get('sort', 0) == (3 if nested else 0)
  assert not found.collectives
  assert sum(found.bytes.values()) >= 3 * 8 * 8 * 4
