"""MNIST from its own files, over a real local HTTP server."""

import gzip
import http.server
import os
from pathlib import Path
import shutil
import struct
import threading

import numpy as np
import pytest

from qgan_jax import data
from qgan_jax.data import mnist_family, tfds
from qgan_jax.errors import UserError

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = mnist_family.FILES


@pytest.fixture(scope='module')
def original():
  if 'TFDS_DATA_DIR' not in os.environ:
    pytest.skip('TFDS_DATA_DIR is not set')
  folder = Path(os.environ['TFDS_DATA_DIR']).parent / 'mnist'
  if not folder.is_dir():
    pytest.skip('the original MNIST files are not beside TFDS_DATA_DIR')
  return folder


@pytest.fixture
def served(original, tmp_path, monkeypatch):
  """A folder of the real files, and a server of it in TFDS's stead."""
  folder = tmp_path / 'served'
  shutil.copytree(original, folder)

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=str(folder))

    def log_message(self, *args):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use_server(monkeypatch, server.server_port)
    yield folder
    server.shutdown()


def _use_server(monkeypatch, port):
  real = tfds.original_files('mnist')
  local = {
    file: original._replace(url=f'http://127.0.0.1:{port}/{file}')
    for file, original in real.items()
  }
  monkeypatch.setattr(tfds, 'original_files', lambda name: local)


def _load(folder, **options):
  return data.load(
    'mnist', data_dir=str(folder), **{'image_size': 28, **options}
  )


def _files(folder):
  return sorted(p.name for p in folder.rglob('*') if p.is_file())


def test_the_first_run_downloads_and_the_second_does_not(served, tmp_path):
  root = tmp_path / 'data'
  first = _load(root, standin=False)
  assert first.name == 'mnist (original files)'
  assert first.train_images.shape == (60_000, 28, 28, 1)
  assert first.test_images.shape == (10_000, 28, 28, 1)
  # The digit counts that LeCun's page and every textbook give.
  assert np.bincount(first.train_labels).tolist() == [
    5923,
    6742,
    5958,
    6131,
    5842,
    5421,
    5918,
    6265,
    5851,
    5949,
  ]
  assert np.bincount(first.test_labels).tolist() == [
    980,
    1135,
    1032,
    1010,
    982,
    892,
    958,
    1028,
    974,
    1009,
  ]
  # Published mean and deviation of the training pixels.
  pixels = first.train_images / 255
  np.testing.assert_allclose(pixels.mean(), 0.1307, atol=5e-5)
  np.testing.assert_allclose(pixels.std(), 0.3081, atol=5e-5)
  assert _files(root) == sorted(f'{f}.gz' for f in mnist_family.FILES)

  shutil.rmtree(served)
  second = _load(root, standin=False)
  np.testing.assert_array_equal(first.train_images, second.train_images)


def test_a_damaged_download_is_fetched_again(served, tmp_path):
  root = tmp_path / 'data'
  _load(root)
  kept = root / 'mnist-original' / f'{LABELS}.gz'
  whole = kept.read_bytes()
  kept.write_bytes(whole[:-1] + b'!')
  _load(root, standin=False)
  assert kept.read_bytes() == whole


def test_a_wrong_checksum_is_an_error_even_with_a_standin(served, tmp_path):
  path = served / f'{IMAGES}.gz'
  content = bytearray(path.read_bytes())
  content[5000] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match='SHA-256 is .*expected 440fcabf') as e:
    _load(tmp_path / 'data')
  assert f'{IMAGES}.gz' in str(e.value)
  assert not (tmp_path / 'data').exists()


def test_a_missing_file_leads_to_the_standin_or_the_ways_out(
  served, tmp_path, capsys, caplog
):
  (served / f'{TEST_LABELS}.gz').unlink()
  found = _load(tmp_path / 'data', image_size=16)
  assert found.is_standin
  assert found.name == 'digits (stand-in for mnist)'
  assert found.train_images.shape[1:] == (16, 16, 1)
  assert 'THIS IS NOT MNIST.' in capsys.readouterr().err
  assert '404' in caplog.text
  with pytest.raises(
    UserError, match='404.*tfds build.*original.*--config=digits'
  ):
    _load(tmp_path / 'data', standin=False)


def test_nothing_is_fetched_where_that_is_forbidden(served, tmp_path):
  with pytest.raises(UserError, match='train-images-idx3-ubyte.gz is not in'):
    _load(tmp_path / 'data', standin=False, download=False)


def test_a_folder_that_cannot_be_written_to(served, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='Cannot write.*set data.dir'):
    _load(tmp_path / 'file' / 'data')


def test_original_files_of_another_set_are_refused(original):
  with pytest.raises(UserError, match='not the original file of kmnist'):
    data.load('kmnist', data_dir=str(original), image_size=28)


def test_unzipped_files_are_read_from_the_sets_own_folder(original, tmp_path):
  folder = tmp_path / 'mnist'
  folder.mkdir()
  for file in mnist_family.FILES:
    with gzip.open(original / f'{file}.gz') as source:
      (folder / file).write_bytes(source.read())
  found = _load(tmp_path, standin=False, download=False)
  zipped = _load(original)
  np.testing.assert_array_equal(found.train_images, zipped.train_images)
  np.testing.assert_array_equal(found.test_labels, zipped.test_labels)

  (folder / LABELS).write_bytes((folder / TEST_LABELS).read_bytes())
  with pytest.raises(UserError, match='do not belong together'):
    _load(tmp_path)
  (folder / LABELS).write_bytes(
    struct.pack('>2xBBI', 8, 1, 60_000) + bytes([10]) * 60_000
  )
  with pytest.raises(UserError, match='labels .* reach 10'):
    _load(tmp_path)
  for shape in ((0, 28, 28), (0,)):
    file = IMAGES if len(shape) > 1 else LABELS
    header = struct.pack(f'>2xBB{len(shape)}I', 8, len(shape), *shape)
    (folder / file).write_bytes(header)
  with pytest.raises(UserError, match='hold no images'):
    _load(tmp_path)


@pytest.mark.parametrize('shape', [(), (3,), (2, 3, 4)])
def test_idx_is_parsed_by_its_definition(shape):
  values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  header = struct.pack(f'>HBB{len(shape)}I', 0, 8, len(shape), *shape)
  parsed = mnist_family.parse_idx(header + values.tobytes(), source=Path('x'))
  np.testing.assert_array_equal(parsed, values)
  assert parsed.shape == shape
  for wrong in (values.tobytes()[:-1], values.tobytes() + b'\0'):
    with pytest.raises(UserError, match="'x' has"):
      mnist_family.parse_idx(header + wrong, source=Path('x'))


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'\0\0',
    b'\0\0\x0d\x01\0\0\0\0',
    b'<html>',
    b'\0\0\x08\x03\0\0',
    # 255 dimensions of 1; NumPy has 64.
    b'\0\0\x08\xff' + 255 * b'\0\0\0\x01' + b'7',
  ],
)
def test_what_is_not_idx(content):
  with pytest.raises(UserError, match="'x'"):
    mnist_family.parse_idx(content, source=Path('x'))
