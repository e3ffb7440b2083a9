import json

from fake_runs import make_run, make_sweep, scores_of
import pytest

from qgan_jax.reports.answer import answer, number, size
from qgan_jax.reports.read import read_runs
from qgan_jax.reports.tables import settings_table, trials_table


def answer_of(folder, tolerance=0.1):
  trials = trials_table(read_runs([folder]))
  found = answer(settings_table(trials, 'best'), trials, tolerance=tolerance)
  return found._replace(
    sentence=found.sentence.replace('\N{NO-BREAK SPACE}', ' ')
  )


@pytest.mark.parametrize(
  # Scores are 3, 2.5, 2.125, 2.0078 and 2 for 1, 2, 4, 8 and 32 bits.
  ('tolerance', 'bits'),
  [(0.6, '1 bits'), (0.3, '2 bits'), (0.1, '4 bits'), (0.01, '8 bits')],
)
def test_the_fewest_bits_within_a_tolerance(tmp_path, tolerance, bits):
  found = answer_of(make_sweep(tmp_path / 's', grid=False), tolerance)
  assert found.headline == bits.replace('1 bits', '1 bit')


def test_the_sentence_has_spread_size_and_diversity(tmp_path):
  found = answer_of(make_sweep(tmp_path / 's', grid=False))
  assert '2.13 (2.12 to 2.15 over 3 seeds)' in found.sentence
  assert '2.01 (2.00 to 2.02 over 3 seeds) in float' in found.sentence
  assert '154 kB instead of 1.19 MB' in found.sentence
  assert 'Recall goes from 0.597 to 0.575' in found.sentence
  assert found.notes == []


def test_none_is_close_enough(tmp_path):
  found = answer_of(make_sweep(tmp_path / 's', bits=(1, 2, 32), grid=False))
  assert found.headline == 'None of these'
  assert 'Nearest is 2 bits, 24.9 % worse' in found.sentence


def test_a_seed_that_is_not_within_is_said(tmp_path):
  make_run(tmp_path / 'float', 32, score=2.0)
  make_run(tmp_path / 'a', 4, seed=0, score=2.0)
  make_run(tmp_path / 'b', 4, seed=1, score=2.3)
  found = answer_of(tmp_path)
  assert found.headline == '4 bits'
  assert any('Not every seed of 4 bits' in note for note in found.notes)
  assert any('1 of 2 settings have one seed' in note for note in found.notes)


def test_what_is_missing_is_said(tmp_path):
  make_run(tmp_path / 'a', 4, score=None)
  assert answer_of(tmp_path).headline == 'No score yet'
  make_run(tmp_path / 'b', 4, seed=1, score=2.0)
  found = answer_of(tmp_path)
  assert found.headline == 'No float run'
  assert '1 of 2 trials have no score: 1 unfinished.' in found.notes
  make_run(tmp_path / 'c', 32, score=2.0)
  assert answer_of(tmp_path).headline == '4 bits'


def test_only_float_is_said(tmp_path):
  make_run(tmp_path / 'c', 32, score=2.0)
  assert answer_of(tmp_path).headline == 'Only float'


def test_numbers_for_people():
  values = (0, 2.3149, 0.012345, 23.456, 1234.5, float('nan'))
  assert [number(v) for v in values] == [
    '0', '2.31', '0.0123', '23.5', '1,234', '–'
  ]  # fmt: skip
  sizes = (999, 153_704, 1_185_916, float('nan'))
  assert [size(v) for v in sizes] == ['999 B', '154 kB', '1.19 MB', '–']


def test_no_bits_are_chosen_by_a_float_run_that_draws_noise(tmp_path):
  for bits in (32, 2):
    scores = scores_of(900.0, bits, coverage=0.007)
    make_run(tmp_path / str(bits), bits, scores=scores)
  found = answer_of(tmp_path)
  assert found.headline == 'Nothing learned'
  assert 'float itself has a coverage of 0.007' in found.sentence
  assert any('2 of 2 settings have learned nothing' in n for n in found.notes)


def test_quantized_noise_is_no_reason_not_to_answer(tmp_path):
  make_run(tmp_path / 'float', 32, score=2.0)
  make_run(tmp_path / '8', 8, score=2.0)
  make_run(tmp_path / '1', 1, scores=scores_of(900.0, 1, coverage=0.0))
  found = answer_of(tmp_path)
  assert found.headline == '8 bits'
  assert any('1 of 3 settings have learned nothing' in n for n in found.notes)


def test_what_has_not_learned_is_not_recommended(tmp_path):
  make_run(tmp_path / 'float', 32, score=2.0)
  make_run(tmp_path / '8', 8, score=2.1)
  make_run(tmp_path / '1', 1, scores=scores_of(2.0, 1, coverage=0.01))
  assert answer_of(tmp_path).headline == '8 bits'
  (tmp_path / '8' / 'scores.json').unlink()
  assert answer_of(tmp_path).headline == 'Only float'
  (tmp_path / 'float' / 'scores.json').unlink()
  assert 'Best is' not in answer_of(tmp_path).sentence


def test_a_float_generator_is_no_answer(tmp_path):
  make_run(tmp_path / 'float', 32, score=2.0)
  bits = {'weights': 8, 'activations': 8}
  make_run(tmp_path / 'd', 32, score=2.0, discriminator__bits=bits)
  assert answer_of(tmp_path).headline == 'Only float'


def test_bits_by_rules_are_the_mean_over_the_weights(tmp_path):
  make_run(tmp_path / 'float', 32, score=2.0)
  make_run(tmp_path / '4', 4, score=2.1)
  rules = 'generator/weights/up: bits=2; generator/weights/out: bits=6'
  ruled = make_run(tmp_path / 'r', 8, score=2.1, precision__rules=rules)
  assert answer_of(tmp_path).headline == '4 bits'  # Those of r are not known.
  rows = [
    {'network': network, 'role': role, 'bits': bits, 'shape': shape}
    for network, role, bits, shape in (
      ('generator', 'weights', 2, [3, 3, 10]),
      ('generator', 'weights', 6, [30]),
      ('generator', 'activations', 8, [7]),
      ('discriminator', 'weights', 8, [500]),
    )
  ]
  (ruled / 'precision.json').write_text(json.dumps(rows))
  assert answer_of(tmp_path).headline == '8 bits + rules'
  trials = trials_table(read_runs([ruled]))
  assert trials['x'][0] == (2 * 90 + 6 * 30) / 120


def test_an_exponent_is_no_number_of_bits(tmp_path):
  make_run(tmp_path / 'float', 32, score=2.0)
  for exponent, packed in ((-6, 300_000), (-3, 100_000)):
    scores = scores_of(2.1, exponent)
    scores['sizes']['artifact_bytes'] = packed
    make_run(
      tmp_path / str(exponent), exponent, scores=scores, grid=False,
      precision__quantizer='grid',
    )  # fmt: skip
  assert 'takes 100 kB' in answer_of(tmp_path).sentence
  by_rule = make_run(
    tmp_path / 'r', 8, precision__rules='*/weights/up: quantizer=grid bits=-6'
  )
  row = {'network': 'generator', 'role': 'weights', 'shape': [3, 3]}
  rows = [row | {'bits': -6, 'quantizer': 'grid'}, row | {'bits': 8}]
  (by_rule / 'precision.json').write_text(json.dumps(rows))
  trials = trials_table(read_runs([tmp_path]))
  assert trials.dropna(subset=['x'])['trial'].tolist() == ['float']


@pytest.mark.parametrize('num_real', [30, 300])
def test_too_few_held_out_images_are_said_once(tmp_path, num_real):
  for bits in (32, 8):
    scores = scores_of(2.0, bits, num_real=num_real)
    make_run(tmp_path / str(bits), bits, scores=scores)
  notes = answer_of(tmp_path).notes
  few = [n for n in notes if 'held-out images are too few' in n]
  assert len(few) == (num_real == 30)
