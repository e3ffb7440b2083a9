from fake_runs import make_run
import numpy as np
import pytest

from qgan_jax.reports import curves
from qgan_jax.reports.read import read_runs


@pytest.mark.parametrize(
  ('key', 'family', 'layer'),
  [
    ('sigma/generator/up0', 'sigma', 'G up0'),
    ('sigma/discriminator/a/b', 'sigma', 'D a/b'),
    ('quantization/generator/up0/sqnr', 'quantization/sqnr', 'G up0'),
    (
      'quantization/discriminator/a/weights/x',
      'quantization/x',
      'D a/weights',
    ),
    ('quantization/sqnr/generator/up0', 'quantization/sqnr', 'G up0'),
    ('quantization/clip_rate', 'quantization', ''),
    ('steps_per_second', 'steps_per_second', ''),
    ('sigma/encoder/Conv_0', 'sigma', 'encoder Conv_0'),
  ],
)
def test_families(key, family, layer):
  assert curves.family_of(key) == (family, layer)


def test_every_metric_is_in_one_panel(tmp_path):
  runs = read_runs([make_run(tmp_path / 'run')])
  runs[0].curves['something/new'] = ([1], [2.0])
  panels = curves.panels(runs)
  keys = [key for panel in panels for key, _ in panel['metrics']]
  assert sorted(keys) == sorted(runs[0].curves)
  sections = {panel['title']: panel['section'] for panel in panels}
  assert sections['Losses'] == 'training'
  assert sections['Largest singular values'] == 'stability'
  assert sections['Signal to quantization noise, dB'] == 'quantization'
  assert sections['something'] == 'other'


def test_what_was_looked_at_once_has_no_curve(tmp_path):
  runs = read_runs([make_run(tmp_path / 'run', grid=False)])
  runs[0].curves['quantization/generator/up0/weights/x'] = ([9], [2.0])
  once = {p['title']: curves.is_once(p, runs) for p in curves.panels(runs)}
  assert once['X']
  assert not once['Losses']


def test_measures_without_a_name_show_their_own(tmp_path):
  runs = read_runs([make_run(tmp_path / 'run', grid=False)])
  runs[0].curves['quantization/generator/up0/weights/new_one'] = ([1], [2.0])
  assert curves.panels(runs)[-1]['title'] == 'New one'


def test_thinning_keeps_order_and_ends():
  steps = list(range(0, 12_345, 5))
  values = np.sin(steps).tolist()
  x, y = curves.thinned((steps, values), 100)
  assert len(x) == len(y) == 100
  assert (x[0], x[-1]) == (steps[0], steps[-1])
  assert x == sorted(set(x))
  np.testing.assert_allclose(y, np.sin(x), rtol=1e-4)
  assert curves.thinned(([1], [float('nan')]), 100) == [[1], [None]]


def test_a_heat_map_is_the_mean_of_last_values(tmp_path):
  for seed in (0, 1):
    make_run(tmp_path / str(seed), bits=4, seed=seed)
  make_run(tmp_path / 'two', bits=2)
  runs = read_runs([tmp_path])
  settings = ['4 bits', '4 bits', '2 bits']
  panel = next(
    panel for panel in curves.panels(runs) if 'singular' in panel['title']
  )
  found = curves.heat_map(panel, runs, settings)
  assert found['y'] == ['4 bits', '2 bits']
  assert found['x'] == ['G project', 'G up0', 'D down0']
  key = 'sigma/generator/up0'
  last = [run.curves[key][1][-1] for run in runs]
  assert found['z'][0][1] == pytest.approx((last[0] + last[1]) / 2)
  assert found['z'][1][1] == last[2]
