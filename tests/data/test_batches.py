import threading

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from qgan_jax.data import batch_indices, Batches, batches, prefetched
from qgan_jax.errors import UserError

SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**64 - 1)


@given(seed=SEEDS, num_examples=SIZES, batch_size=SIZES)
def test_every_epoch_shows_every_example_once(seed, num_examples, batch_size):
  epochs = 3
  steps = -(-epochs * num_examples // batch_size)
  stream = np.concatenate(
    [
      batch_indices(
        seed=seed, step=t, batch_size=batch_size, num_examples=num_examples
      )
      for t in range(steps)
    ]
  )
  for epoch in range(epochs):
    part = stream[epoch * num_examples : (epoch + 1) * num_examples]
    np.testing.assert_array_equal(np.sort(part), np.arange(num_examples))


@given(
  seed=SEEDS,
  num_examples=SIZES,
  share=st.integers(1, 9),
  processes=st.integers(1, 5),
  devices=st.integers(1, 4),
  step=st.integers(0, 10_000),
)
def test_devices_of_all_processes_are_dealt_the_batch_of_one(
  seed, num_examples, share, processes, devices, step
):
  common = {
    'seed': seed,
    'step': step,
    'batch_size': share * processes * devices,
    'num_examples': num_examples,
  }
  parts = [
    batch_indices(
      **common,
      process_index=p,
      process_count=processes,
      process_devices=devices,
    )
    for p in range(processes)
  ]
  whole = batch_indices(**common)
  for p, part in enumerate(parts):
    for device in range(devices):
      np.testing.assert_array_equal(
        part[device::devices],
        whole[p * devices + device :: processes * devices],
      )


@given(order=st.permutations(range(12)))
def test_a_batch_does_not_depend_on_what_was_asked_before(order):
  def ask(step):
    return batch_indices(seed=3, step=step, batch_size=5, num_examples=7)

  expected = [ask(step) for step in range(12)]
  batches._orders.cache_clear()
  for step in order:
    np.testing.assert_array_equal(ask(step), expected[step])


def test_members_that_take_turns_sort_each_epoch_once(monkeypatch):
  order, sorted_epochs = batches._order, []

  def counting(seed, num_examples, epoch):
    sorted_epochs.append((seed, epoch))
    return order(seed, num_examples, epoch)

  monkeypatch.setattr(batches, '_order', counting)
  batches._orders.cache_clear()
  for step in range(50):  # 2.5 epochs; a batch lies in two of them.
    for seed in range(200):
      batch_indices(seed=seed, step=step, batch_size=5, num_examples=98)
  batches._orders.cache_clear()
  assert sorted(sorted_epochs) == [(s, e) for s in range(200) for e in range(3)]


def test_epochs_and_seeds_have_orders_of_their_own():
  orders = {
    tuple(batch_indices(seed=s, step=e, batch_size=50, num_examples=50))
    for s in range(3)
    for e in range(4)
  }
  assert len(orders) == 12


def test_the_order_is_the_same_for_ever():
  # A resumed run must see the same data after any upgrade.
  got = batch_indices(seed=7, step=1, batch_size=6, num_examples=6)
  assert got.tolist() == [3, 1, 2, 5, 4, 0]


def test_a_batch_is_of_its_step():
  images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
  labels = np.arange(20, dtype=np.int32)
  x, y = Batches(images, labels, seed=1, batch_size=6).at(5)
  expected = batch_indices(seed=1, step=5, batch_size=6, num_examples=20)
  np.testing.assert_array_equal(x.ravel(), expected)
  np.testing.assert_array_equal(y, expected)
  assert Batches(images, None, seed=1, batch_size=6).at(0)[1] is None


def test_prefetched_is_one_ahead_and_in_order():
  made, ahead = [], threading.Event()

  def make(step):
    made.append(step)
    if len(made) == 2:
      ahead.set()
    return step

  feed = prefetched(make, range(3, 7))
  assert next(feed) == 3
  assert ahead.wait(10)  # The second is made, though nobody asked for it.
  assert list(feed) == [4, 5, 6]
  assert made == [3, 4, 5, 6]


def test_what_a_batch_raises_is_raised_at_its_step():
  def make(step):
    if step == 1:
      raise UserError('no such file')
    return step

  feed = prefetched(make, range(3))
  assert next(feed) == 0
  with pytest.raises(UserError, match='no such file'):
    next(feed)


def test_a_feed_that_is_closed_leaves_no_thread():
  feed = prefetched(lambda step: step, range(9))
  next(feed)
  feed.close()
  assert not [t for t in threading.enumerate() if 'batches' in t.name]


@pytest.mark.parametrize(
  ('options', 'says'),
  [
    ({'batch_size': 10, 'process_count': 4}, '10 is not a positive multiple'),
    ({'batch_size': 0}, '0 is not'),
    ({'batch_size': 8, 'num_examples': 0}, 'no examples'),
  ],
)
def test_impossible_batches_are_refused(options, says):
  with pytest.raises(UserError, match=says):
    batch_indices(**{'seed': 0, 'step': 0, 'num_examples': 9, **options})
