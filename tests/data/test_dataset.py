from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from qgan_jax.data import dataset


@pytest.mark.parametrize(
  ('num', 'held_out'), [(2, 1), (15, 2), (1000, 100), (200_000, 10_000)]
)
def test_the_split_is_a_fixed_partition(num, held_out):
  train, test = dataset.hold_out(num)
  assert len(test) == held_out
  np.testing.assert_array_equal(np.sort([*train, *test]), np.arange(num))
  again = dataset.hold_out(num)
  np.testing.assert_array_equal(test, again[1])


def _keys(num, name='key'):
  return [f'{name}{i}'.encode() for i in range(num)]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_every_class_is_in_both_parts(sizes):
  labels = np.repeat(np.arange(len(sizes)), sizes)
  held_out = dataset.hold_out_by_content(_keys(len(labels)), labels)
  for label, size in enumerate(sizes):
    sides = {False, True} if size > 1 else {False}
    assert set(held_out[labels == label]) == sides


def test_a_tenth_is_held_out_and_at_most_ten_thousand():
  share = dataset.hold_out_by_content(_keys(20_000)).mean()
  assert abs(share - 0.1) < 0.01
  count = dataset.hold_out_by_content(_keys(200_000)).sum()
  assert abs(count - 10_000) < 500


def test_each_is_held_out_for_itself():
  keys = _keys(500)
  held_out = dataset.hold_out_by_content(keys)
  more = dataset.hold_out_by_content(_keys(500, 'another') + keys[::-1])
  np.testing.assert_array_equal(more[500:][::-1], held_out)
  twice = dataset.hold_out_by_content(keys * 2)
  np.testing.assert_array_equal(twice, np.tile(held_out, 2))


def test_the_split_is_for_ever():
  """Runs of earlier versions are scored with the same pictures."""
  held_out = dataset.hold_out_by_content(_keys(30))
  assert np.flatnonzero(held_out).tolist() == [5, 10, 12, 27]


@given(
  st.lists(
    st.lists(st.integers(0, 30), min_size=1, max_size=9, unique=True),
    min_size=1,
    max_size=6,
  )
)
def test_classes_that_share_keys_can_all_be_trained_on(classes):
  labels = np.repeat(np.arange(len(classes)), [len(x) for x in classes])
  keys = [f'{key}'.encode() for found in classes for key in found]
  held_out = dataset.hold_out_by_content(keys, labels)
  for label in range(len(classes)):
    assert not held_out[labels == label].all()
  sides = {}
  for key, side in zip(keys, held_out, strict=True):
    assert sides.setdefault(key, side) == side


@given(
  st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(1, 500)
)
def test_labels_are_in_proportion(labels, num):
  found = dataset.labels_in_proportion(np.array(labels), num)
  assert found.shape == (num,)
  counts = np.bincount(found, minlength=10)
  shares = np.bincount(labels, minlength=10) / len(labels)
  assert np.abs(counts - num * shares).max() <= 5
  assert not counts[shares == 0].any()
  np.testing.assert_array_equal(
    found[: num // 2], dataset.labels_in_proportion(np.array(labels), num // 2)
  )


def test_labels_of_equal_classes_come_in_turn():
  found = dataset.labels_in_proportion(np.repeat(np.arange(4), 25), 30)
  np.testing.assert_array_equal(found, np.arange(30) % 4)
