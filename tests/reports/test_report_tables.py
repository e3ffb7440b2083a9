import json

from fake_runs import make_run, make_sweep, scores_of
import numpy as np
import pandas as pd
import pytest

from qgan_jax.reports.page_tables import settings_on_page
from qgan_jax.reports.read import read_runs
from qgan_jax.reports.tables import (
  comparisons_of,
  curves_table,
  pareto,
  save_tables,
  settings_table,
  trials_table,
)


def test_means_and_spread_over_seeds(tmp_path):
  for seed, score in enumerate((2.0, 3.0, 7.0)):
    make_run(tmp_path / str(seed), bits=4, seed=seed, score=score)
  make_run(tmp_path / 'unfinished', bits=4, seed=3, score=None)
  trials = trials_table(read_runs([tmp_path]))
  assert len(trials) == 4
  best = settings_table(trials, 'best').iloc[0]
  assert (best['setting'], best['seeds']) == ('4 bits', 3)
  assert best['score'] == 4
  assert (best['score_min'], best['score_max']) == (2, 7)
  assert best['score_std'] == pytest.approx(np.std([2, 3, 7], ddof=1))
  assert best['artifact_bytes'] == 154_000
  assert settings_table(trials, 'last').iloc[0]['score'] == 5


def test_what_a_variant_measures_is_shown_where_it_is(tmp_path):
  for seed, elbo in enumerate((-100.0, -98.0)):
    scores = scores_of(3.0)
    scores['best'] |= {'elbo': elbo, 'kl': 25.0}
    make_run(tmp_path / str(seed), bits=4, seed=seed, scores=scores)
  settings = settings_table(trials_table(read_runs([tmp_path])), 'best')
  assert settings['elbo'].tolist() == [-99]
  page = settings_on_page(settings, 'table', 'Fréchet distance')
  titles = [column.title for column in page['columns']]
  assert {'ELBO, nats', 'KL, nats'} <= set(titles)
  assert 'PSNR, dB' not in titles
  (row,) = page['rows']
  assert row[titles.index('ELBO, nats')].text == '-99.0'


def test_a_row_says_where_it_comes_from(tmp_path):
  make_sweep(tmp_path, bits=(8,), seeds=(1,))
  (row,) = trials_table(read_runs([tmp_path])).to_dict('records')
  assert row['seconds'] == 61
  assert row['devices'] == '2 × cpu'
  assert row['extractor_hash'] == '0123456789ab'
  assert row['num_fake'] == 512
  assert 15 < row['steps_per_second'] < 25
  assert row['command'].endswith('bits=8,seed=1')
  assert 'jax 0.10.2' in row['versions']


def test_kid_is_of_inception_features_whatever_a_file_says(tmp_path):
  old = scores_of(3.0)
  for checkpoint in 'best', 'last':
    mean = old[checkpoint].pop('kernel_distance_mean')
    del old[checkpoint]['num_neighbours']
    old[checkpoint]['kid_mean'] = mean
  inception = {
    checkpoint: scores_of(3.0)['best'] | {'fid': 9.0, 'kid_mean': 0.02}
    for checkpoint in ('best', 'last')
  }
  for checkpoint in inception.values():
    checkpoint.pop('kernel_distance_mean')
  make_run(tmp_path / 'new', scores=scores_of(3.0))
  make_run(tmp_path / 'old', seed=1, scores=old)
  make_run(tmp_path / 'inception', seed=2, scores=inception)
  table = trials_table(read_runs([tmp_path])).set_index('trial')
  assert table['best_kid_mean'].dropna().to_dict() == {'inception': 0.02}
  distances = table['best_kernel_distance_mean'].dropna().to_dict()
  assert distances == {'new': pytest.approx(0.03)}
  neighbours = table['num_neighbours'].dropna().to_dict()
  assert neighbours == {'new': 359, 'inception': 359}


def test_pareto_is_what_nothing_beats():
  generator = np.random.default_rng(0)
  sizes, scores = pd.Series(generator.random((2, 40)).round(1).tolist())
  sizes, scores = pd.Series(sizes), pd.Series(scores)
  for i, on_front in enumerate(pareto(sizes, scores)):
    no_worse = (sizes <= sizes[i]) & (scores <= scores[i])
    better = (sizes < sizes[i]) | (scores < scores[i])
    assert on_front == (not (no_worse & better).any())
  assert pareto(pd.Series([np.nan, 1]), pd.Series([0, 1])) == [False, True]


def test_scores_of_other_images_or_features_are_not_compared(tmp_path):
  make_run(tmp_path / 'a', scores=scores_of(3.0))
  make_run(tmp_path / 'b', seed=1, scores=scores_of(3.0))
  make_run(tmp_path / 'fewer', scores=scores_of(3.0, fake=64))
  other = scores_of(3.0)
  other['best'] |= {'extractor': {'name': 'other', 'hash': 'ffff'}}
  make_run(tmp_path / 'other', scores=other)
  make_run(tmp_path / 'unfinished', score=None)
  groups = comparisons_of(trials_table(read_runs([tmp_path])))
  members = [sorted(group['trial']) for group in groups.values()]
  assert members[0] == ['a', 'b', 'unfinished']
  assert sorted(members[1:]) == [['fewer'], ['other']]


def test_images_of_two_sizes_are_not_compared_in_the_same_features(tmp_path):
  # Inception takes images of any size, and real ones differ with it.
  for seed, size in enumerate((28, '64x48', 28)):
    make_run(tmp_path / str(seed), seed=seed, score=3.0)
    config = tmp_path / str(seed) / 'config.json'
    record = json.loads(config.read_text())
    record['config']['data']['image_size'] = size
    config.write_text(json.dumps(record))
  groups = comparisons_of(trials_table(read_runs([tmp_path])))
  members = [sorted(group['trial']) for group in groups.values()]
  assert members == [['0', '2'], ['1']]


def test_nothing_scored_is_an_empty_table(tmp_path):
  make_run(tmp_path / 'a', score=None)
  trials = trials_table(read_runs([tmp_path]))
  ((_, group),) = comparisons_of(trials).items()
  table = settings_table(group, 'best')
  assert table.empty
  assert {'setting', 'score', 'pareto'} <= set(table.columns)


def test_csv_and_parquet_hold_the_same(tmp_path):
  make_sweep(tmp_path / 's', bits=(4, 32), seeds=(0,))
  make_run(tmp_path / 's' / 'unfinished', score=None)
  runs = read_runs([tmp_path])
  tables = {'trials': trials_table(runs), 'curves': curves_table(runs)}
  save_tables(tables, tmp_path)
  for name, table in tables.items():
    csv = pd.read_csv(tmp_path / f'{name}.csv')
    parquet = pd.read_parquet(tmp_path / f'{name}.parquet')
    assert list(csv.columns) == list(parquet.columns) == list(table.columns)
    assert len(csv) == len(parquet) == len(table) > 0
  curves = tables['curves']
  one = curves[(curves['metric'] == 'd_loss') & (curves['step'] == 50)]
  assert len(one) == 3


def test_a_mean_is_within_its_range(tmp_path):
  for seed in range(3):
    make_run(tmp_path / str(seed), seed=seed, score=0.1, grid=False)
  row = settings_table(trials_table(read_runs([tmp_path])), 'best').iloc[0]
  assert pd.Series([0.1] * 3).mean() != 0.1  # Or nothing is tested.
  assert row['score_min'] <= row['score'] <= row['score_max']
