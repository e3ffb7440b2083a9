"""The file of trials that a population is given."""

import json
from pathlib import Path

from ml_collections import ConfigDict
import pytest
import tiny_run

from qgan_jax import variants
from qgan_jax.errors import UserError
from qgan_jax.runs import population
from qgan_jax.runs.population import read_trials
from qgan_jax.runs.shared import program_key
from qgan_jax.runs.variants import make_variant

ROOT = Path(__file__).parents[2]
DIGITS = '--config=experiments/digits.py'


@pytest.fixture
def read(tmp_path, monkeypatch):
  """Reads a file with such a text."""
  monkeypatch.chdir(ROOT)

  def read(text):
    path = tmp_path / 'trials.json'
    path.write_text(text)
    return read_trials(path)

  return read


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('[', 'no list of trials'),
    ('[{"workdir": "a"}]', 'no list of trials'),
    (f'[{{"workdir": "a", "args": ["{DIGITS}:bist=8"]}}]', "a: .*'bits'"),
    (
      json.dumps([{'workdir': 'a', 'args': [DIGITS]}] * 2),
      'two trials have the folder a',
    ),
  ],
)
def test_a_wrong_file_is_refused(read, text, message):
  with pytest.raises(UserError, match=message):
    read(text)


def test_what_cannot_be_traced_has_a_program_of_its_own(read):
  args = {
    'same': [],
    'rate': ['--config.discriminator.learning_rate=0.5'],
    'wider': ['--config.channels=16'],
    'quantizer': ['--config.precision.quantizer=power_of_two_scale'],
  }
  trials = read(
    json.dumps(
      [
        {'workdir': name, 'args': [f'{DIGITS}:bits=2,channels=8', *more]}
        for name, more in args.items()
      ]
    )
  )
  assert [str(trial.workdir) for trial in trials] == list(args)
  keys = [program_key(trial.experiment.config) for trial in trials]
  assert keys[0] == keys[1]
  assert len(set(keys)) == 3


@pytest.mark.parametrize(
  'text', [*tiny_run.VARIANTS.values(), 'variant=vae_gan']
)
def test_trials_that_differ_in_a_number_of_the_loss_share_a_program(text):
  config = tiny_run.make_config(text)
  dataset = tiny_run.make_dataset()
  if config.variant in variants.FROM_IMAGES:
    dataset = tiny_run.make_pairs(input_channels=1)
  for name in make_variant(config, dataset).hyperparameters:
    changed = config.to_dict()
    changed['loss'][name] = changed['loss'][name] / 2
    other = ConfigDict(changed)
    assert program_key(other) == program_key(config), name


def test_a_trial_that_fails_alone_is_named(read, tmp_path, monkeypatch):
  listed = [
    {'workdir': name, 'args': [f'{DIGITS}:d_steps={steps}']}
    for steps, name in enumerate('ab', 1)
  ]
  read(json.dumps(listed))

  def fail(group):
    raise UserError('step 5 gave NaN')

  monkeypatch.setattr(population, 'train_and_deliver', fail)
  monkeypatch.setattr(population.devices, 'spread_over_cores', lambda n: None)
  monkeypatch.setattr(population, 'keep_programs', lambda: None)
  with pytest.raises(UserError) as caught:
    population.train_population(tmp_path / 'trials.json')
  assert caught.value.args == ('a: step 5 gave NaN', 'b: step 5 gave NaN')
