from concurrent import futures
import dataclasses
import time

import numpy as np
from PIL import Image
import pytest

from qgan_jax import data
from qgan_jax.data import Batches, mapped, reading
from qgan_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'pictures'


def fill(folder, number=40, kinds=('ant', 'bee')):
  """Photographs of two classes, some grey and some of the right size."""
  rng = np.random.default_rng(0)
  for kind in kinds:
    (folder / kind).mkdir(parents=True)
    for i in range(number // 2):
      shape = [(9, 12, 3), (9, 12), (8, 8, 3), (8, 8, 4)][i % 4]
      pixels = rng.integers(0, 256, shape, np.uint8)
      Image.fromarray(pixels).save(folder / kind / f'{i}.png')
  (folder / kinds[0] / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n')
  return folder


def load(folder, **options):
  return data.load(f'folder:{folder}', **{'image_size': 8, **options})


def assert_same(found, expected):
  for field in dataclasses.fields(expected):
    a, b = (getattr(x, field.name) for x in (found, expected))
    if isinstance(b, np.ndarray):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b)
    else:
      assert a == b and type(a) is type(b), field.name


def is_mapped(array):
  while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
    array = array.base
  return isinstance(array, np.memmap)


def no_decoding(*_):
  raise AssertionError('decoded again')


OPTIONS = [
  {},
  {'channels': 3, 'fit': 'pad'},
  {'pixel_art': True, 'image_size': (8, 16)},
  {'pairs': 'ant/bee'},
  {'domains': 'bee/ant'},
]


@pytest.mark.parametrize('options', OPTIONS)
def test_mapped_data_are_those_in_memory(tmp_path, monkeypatch, options):
  folder = fill(tmp_path / 'pictures')
  expected = load(folder, **options)
  assert not is_mapped(expected.train_images)
  made = load(folder, **options, memory=1000)
  monkeypatch.setattr(reading, '_read', no_decoding)
  again = load(folder, **options, memory=1000)
  for found in (made, again):
    assert_same(found, expected)
    assert is_mapped(found.train_images) and is_mapped(found.test_images)
    for step in (0, 7, 30):
      batches = (
        Batches(x.train_images, x.train_labels, seed=1, batch_size=8).at(step)
        for x in (found, expected)
      )
      for a, b in zip(*batches, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(('spare', 'expected'), [(0, False), (-1, True)])
def test_files_are_used_where_memory_might_not_do(tmp_path, spare, expected):
  folder = fill(tmp_path / 'pictures', 8)
  found = load(folder, channels=3, memory=9 * 8 * 8 * 3 + spare)
  assert is_mapped(found.train_images) == expected


def test_other_data_or_sizes_have_other_files(tmp_path, cache):
  folder = fill(tmp_path / 'pictures')
  for size in (8, 16):
    load(folder, image_size=size, memory=0)
  load(folder.rename(tmp_path / 'elsewhere'), memory=0)
  assert len([x for x in cache.iterdir() if x.is_dir()]) == 2
  Image.new('L', (8, 8)).save(tmp_path / 'elsewhere' / 'ant' / '0.png')
  changed = load(tmp_path / 'elsewhere', memory=0)
  assert len([x for x in cache.iterdir() if x.is_dir()]) == 3
  assert_same(changed, load(tmp_path / 'elsewhere'))


def test_a_damaged_copy_is_made_again(tmp_path, cache):
  folder = fill(tmp_path / 'pictures')
  expected = load(folder)
  load(folder, memory=0)
  path = next(cache.glob('*/train_images.npy'))
  path.write_bytes(path.read_bytes()[:-1])
  assert_same(load(folder, memory=0), expected)


def test_what_was_killed_leaves_nothing_behind(tmp_path, cache, monkeypatch):
  folder = fill(tmp_path / 'pictures')

  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(mapped.Files, 'stack', interrupted)
  with pytest.raises(KeyboardInterrupt):
    load(folder, memory=0)
  assert not [x for x in cache.iterdir() if x.is_dir()]
  monkeypatch.undo()
  monkeypatch.setenv('QGAN_JAX_CACHE', str(tmp_path / 'cache'))
  # As a process leaves it that had no time to tidy up.
  lock = next(cache.glob('*.lock'))
  lock.with_suffix('.part').mkdir()
  (lock.with_suffix('.part') / 'decoded').write_bytes(b'half')
  assert_same(load(folder, memory=0), load(folder))
  assert [x.name for x in cache.iterdir() if x.is_dir()] == [lock.stem]


def test_pictures_that_change_meanwhile_are_refused(tmp_path, monkeypatch):
  folder = fill(tmp_path / 'pictures')
  readable = reading.readable

  def late(*args):
    Image.new('L', (8, 8)).save(folder / 'ant' / 'new.png')
    return readable(*args)

  monkeypatch.setattr(reading, 'readable', late)
  with pytest.raises(UserError, match='change while they are read'):
    load(folder, memory=0)


@pytest.mark.parametrize(
  ('free', 'says'),
  [(100, 'its disk has 0.0 GiB: set QGAN_JAX_CACHE'), (2**60, 'No space left')],
)
def test_a_full_disk_is_said_in_a_sentence(
  tmp_path, cache, monkeypatch, free, says
):
  folder = fill(tmp_path / 'pictures')
  usage = mapped.shutil.disk_usage(tmp_path)._replace(free=free)
  monkeypatch.setattr(mapped.shutil, 'disk_usage', lambda _: usage)

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(mapped, '_sync', full)
  with pytest.raises(UserError, match=says):
    load(folder, memory=0)
  assert not [x for x in cache.iterdir() if x.is_dir()]


def test_one_process_decodes_and_others_wait(tmp_path, cache, monkeypatch):
  folder = fill(tmp_path / 'pictures')
  expected = load(folder, memory=0)
  made = next(x for x in cache.iterdir() if x.is_dir())
  hidden = made.rename(tmp_path / 'hidden')
  monkeypatch.setattr(reading, '_read', no_decoding)
  with futures.ThreadPoolExecutor(1) as pool:
    # As another process does that decodes the same.
    with mapped._locked(made.with_suffix('.lock')):
      waits = pool.submit(load, folder, memory=0)
      time.sleep(0.2)
      assert not waits.done()
      hidden.rename(made)
    assert_same(waits.result(30), expected)
