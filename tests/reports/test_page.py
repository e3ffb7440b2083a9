import base64
import gzip
from html.parser import HTMLParser
import io
import json
import math
import re

from fake_runs import config_of, make_run, make_sweep, scores_of, write_sweep
import numpy as np
from PIL import Image
import pytest

from qgan_jax.artifacts import grids
from qgan_jax.reports import page as page_lib
from qgan_jax.reports.read import read_runs
from qgan_jax.reports.strips import strips


def render(folder, **options):
  options = {'title': 'a sweep', 'tolerance': 0.1, 'command': 'x'} | options
  return page_lib.render(read_runs([folder]), **options)


class Reader(HTMLParser):
  """Tables as text, and every address that a page would fetch."""

  def __init__(self, page):
    super().__init__()
    self.addresses, self.tables, self._cell = [], {}, None
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.addresses += [attrs[a] for a in ('src', 'href') if a in attrs]
    if tag == 'table':
      self.tables[attrs['id']] = self._rows = []
    elif tag == 'tr':
      self._rows.append([])
    elif tag in ('td', 'th'):
      self._rows[-1].append('')
      self._cell = True

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self._cell = None

  def handle_data(self, data):
    if self._cell:
      self._rows[-1][-1] += data


def payload_of(page):
  text = re.search(r'id="data">([^<]*)<', page)[1]
  return json.loads(gzip.decompress(base64.b64decode(text)))


def test_nothing_is_fetched(tmp_path):
  page = render(make_sweep(tmp_path / 's', bits=(4, 32), seeds=(0,)))
  addresses = Reader(page).addresses
  assert len(addresses) > 5
  assert all(a.startswith(('data:', '#')) for a in addresses)
  assert '@import' not in page
  assert 'url(' not in page
  assert len(page) < 2_500_000


def test_tables_hold_what_the_runs_say(tmp_path):
  page = render(make_sweep(tmp_path / 's'))
  tables = Reader(page).tables
  header, *rows = tables['settings-best-0']
  assert [row[0] for row in rows] == [
    '1 bit', '2 bits', '4 bits', '8 bits', 'float'
  ]  # fmt: skip
  four = dict(zip(header, rows[2], strict=True))
  assert four['seeds'] == '3'
  assert four['Fréchet distance, mean'] == f'{2 * (1 + 1 / 16) + 0.01:.3g}'
  assert four['to float'] == '1.06×'
  assert four['bytes'] == '154,000'
  assert len(tables['table-trials']) == 16


def test_points_means_and_bars_are_those_of_the_runs(tmp_path):
  page = render(make_sweep(tmp_path / 's'))
  traces = payload_of(page)['charts']['score-by-bits-best-0']['data']
  points, means = traces
  assert sorted(points['x']) == sorted([1, 2, 4, 8, 32] * 3)
  assert means['x'] == [1, 2, 4, 8, 32]
  expected = [2 * (1 + math.exp2(-bits)) + 0.01 for bits in means['x']]
  np.testing.assert_allclose(means['y'], expected)
  np.testing.assert_allclose(means['error_y']['array'], 0.01)
  np.testing.assert_allclose(means['error_y']['arrayminus'], 0.01)


def test_the_front_is_drawn_by_size(tmp_path):
  for bits, score in ((2, 5.0), (4, 3.0), (8, 4.0), (32, 2.0)):
    make_run(tmp_path / str(bits), bits, score=score)
  traces = payload_of(render(tmp_path))['charts']['score-by-bytes-best-0']
  front = traces['data'][0]
  assert front['x'] == [80_000, 154_000, 1_186_000]
  assert front['y'] == [5, 3, 2]


@pytest.mark.parametrize('count', [1, 200])
def test_any_number_of_trials(tmp_path, count):
  seeds = range(max(1, count // 8))
  bits = (1, 2, 3, 4, 5, 6, 8, 32)[: min(count, 8)]
  folder = make_sweep(tmp_path / 's', bits=bits, seeds=seeds, grid=False)
  page = render(folder)
  assert len(Reader(page).tables['table-trials']) == count + 1
  assert len(page) < 6_000_000


def test_trials_that_failed_or_have_no_scores_are_there(tmp_path):
  folder = make_sweep(tmp_path / 's', bits=(4, 32), seeds=(0,))
  trials = json.loads((folder / 'sweep.json').read_text())['trials']
  for name in 'broken <b>', 'waits':
    config = config_of(2, 7)
    trials.append({'name': name, 'config': config, 'command': 'run & go'})
  states = {'broken <b>': {'state': 'failed', 'message': 'NaN in <loss>'}}
  write_sweep(folder, trials, states)
  nothing = scores_of(3.0)
  del nothing['best']['frechet_distance'], nothing['sizes']
  make_run(folder / 'no score', 8, scores=nothing)
  # Values that are no numbers are no point of a chart.
  make_run(folder / 'nan', 2, scores=scores_of(3.0, recall=None))
  page = render(folder)
  rows = {row[0]: row for row in Reader(page).tables['table-trials']}
  assert 'failed' in rows['broken <b>']
  assert 'NaN in <loss>' in rows['broken <b>']
  assert 'waiting' in rows['waits']
  # Each checkpoint that was scored has a distance.
  assert 'damaged' in rows['no score']
  assert '<loss>' not in page
  assert '3 of 6 trials have no score' in page


def test_no_scores_at_all_still_make_a_page(tmp_path):
  make_run(tmp_path / 'run', score=None, grid=False)
  page = render(tmp_path)
  assert 'No trial has been scored yet.' in page
  assert payload_of(page)['charts'] == {}
  assert payload_of(page)['curves']['d_loss'][0][0] == list(range(10, 101, 10))


def test_strips_are_the_first_images_of_the_grid_of_the_best_step(tmp_path):
  folder = make_run(tmp_path / 'run', scores=scores_of(3.0, step=60))
  images = np.arange(64, dtype=np.uint8)[:, None, None, None]
  images = np.broadcast_to(images, (64, 28, 28, 1))
  grids.save_grid(folder / 'samples' / 'step_0000050.png', images)
  (strip,) = strips(read_runs([folder]), ['4 bits'])
  assert strip.step == 50
  content = base64.b64decode(strip.url.partition(',')[2])
  pixels = np.asarray(Image.open(io.BytesIO(content)))
  assert pixels.shape == (strip.height, strip.width) == (62, 242)
  centres = pixels[16::30, 16::30]
  np.testing.assert_array_equal(centres, np.arange(16).reshape(2, 8))


def test_large_images_are_made_small_and_broken_ones_left_out(tmp_path):
  folder = make_run(tmp_path / 'run', data__image_size=256, grid=False)
  (folder / 'samples').mkdir()
  path = folder / 'samples' / 'step_0000100.png'
  Image.new('RGB', (2066, 2066)).save(path)
  (strip,) = strips(read_runs([folder]), ['4 bits'])
  assert strip.width <= 800
  path.write_bytes(path.read_bytes()[:50])
  assert strips(read_runs([folder]), ['4 bits']) == []


def test_strips_of_images_that_are_not_square(tmp_path):
  folder = make_run(tmp_path / 'run', data__image_size='48x32', grid=False)
  (folder / 'samples').mkdir()
  images = np.random.default_rng(0).integers(0, 255, (64, 48, 32, 1))
  path = folder / 'samples' / 'step_0000050.png'
  grids.save_grid(path, images.astype(np.uint8))
  (strip,) = strips(read_runs([folder]), ['4 bits'])
  # Two rows of eight images, with two pixels around each.
  assert (strip.height, strip.width) == (2 * 50 + 2, 8 * 34 + 2)
