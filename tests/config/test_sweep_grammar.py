import itertools

from hypothesis import given
from hypothesis import strategies as st
import pytest

from qgan_jax.config import sweep_grammar
from qgan_jax.errors import UserError


def test_products_ranges_and_what_stands_side_by_side():
  assert sweep_grammar.expand('bits=8,4;seed=0..2') == [
    'bits=8,seed=0',
    'bits=8,seed=1',
    'bits=8,seed=2',
    'bits=4,seed=0',
    'bits=4,seed=1',
    'bits=4,seed=2',
  ]
  assert sweep_grammar.expand(' bits = 8, 4 & steps=10,20 ; loss=hinge') == [
    'bits=8,steps=10,loss=hinge',
    'bits=4,steps=20,loss=hinge',
  ]
  assert sweep_grammar.expand('bits=-8..-6,32,0..0') == [
    'bits=-8', 'bits=-7', 'bits=-6', 'bits=32', 'bits=0'
  ]  # fmt: skip
  # A path is no range.
  assert sweep_grammar.expand('dir=../a,1..b') == ['dir=../a', 'dir=1..b']


@given(
  st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=4), max_size=3)
)
def test_a_product_is_that_of_itertools(axes):
  axes = [[1], *axes]
  text = ';'.join(
    f'k{i}={",".join(map(str, axis))}' for i, axis in enumerate(axes)
  )
  expected = [
    ','.join(f'k{i}={value}' for i, value in enumerate(row))
    for row in itertools.product(*axes)
  ]
  assert sweep_grammar.expand(text) == expected


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('', 'is not key=value'),
    ('bits', "'bits' in 'bits' is not key=value"),
    ('bits=', 'is not key=value'),
    ('bits=1,,2', 'is not key=value'),
    ('bits=1;', "'' in 'bits=1;' is not key=value"),
    ('=1', 'is not key=value'),
    ('bits=3..1', 'range bits=3..1 is empty; say 1..3'),
    ('bits=1,2&seed=0..2', r'differ \(bits 2, seed 3\)'),
    ('bits=1;seed=2;bits=3', "'bits' comes twice"),
    ('seed=0..10000', 'more than 10,000 trials'),
    ('seed=0..99;steps=1..101', 'more than 10,000 trials'),
  ],
)
def test_what_is_malformed_is_named(text, said):
  with pytest.raises(UserError, match=said):
    sweep_grammar.expand(text)
