import json
import math

from fake_runs import config_of, make_run, make_sweep, write_sweep
import pytest

from qgan_jax.errors import UserError
from qgan_jax.reports.read import fingerprint, read_runs


def test_a_run_is_read_whole(tmp_path):
  (run,) = read_runs([make_run(tmp_path / 'run', bits=4, seed=2, score=3.5)])
  assert (run.name, run.state, run.step) == ('run', 'done', 100)
  assert run.config['generator.bits.weights'] == 4
  assert run.config['seed'] == 2
  assert run.scores['best']['frechet_distance'] == 3.5
  steps, values = run.curves['eval/frechet_distance_train']
  assert steps == list(range(10, 101, 10))
  assert values == [1000 / step for step in steps]
  assert list(run.samples) == [50, 100]
  assert 'dataset' not in run.curves
  assert run.command == (
    'python -m qgan_jax.main --config=digits:bits=4 '
    f'--config.logging.log_every=10 --workdir={tmp_path}/run'
  )


def test_what_is_broken_or_missing_is_left_out_and_said(tmp_path):
  folder = make_run(tmp_path / 'run', score=None, grid=False)
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 110, "d_loss": "NaN", "g_loss": "-Infinity"}\n')
    file.write('not JSON\n[1, 2]\n{"no": "step"}\n{"step": 120, "d_lo')
  (folder / 'scores.json').write_text('{"best": {"fre')
  (run,) = read_runs([folder])
  assert run.state == 'damaged'
  assert f'{folder}/scores.json is damaged: ' in run.message
  # Half a line at the end is no damage.
  assert f'{folder}/metrics.jsonl is damaged: line 12: ' in run.message
  assert run.message.endswith('; 2 more lines')
  assert run.scores == {}
  assert run.samples == {}
  steps, values = run.curves['d_loss']
  assert steps[-2:] == [100, 110]
  assert math.isnan(values[-1])
  assert run.curves['g_loss'][1][-1] == -math.inf


def test_a_sweep_tells_what_became_of_its_trials(tmp_path):
  folder = make_sweep(tmp_path / 'sweep', bits=(4,), seeds=(0,))
  names = ('bits=4,seed=0', 'failed', 'waiting')
  trials = [
    {'name': name, 'workdir': name, 'config': config_of(8, i), 'command': name}
    for i, name in enumerate(names)
  ]
  states = {
    'bits=4,seed=0': {'state': 'running', 'seconds': 5.0},
    'failed': {'state': 'failed', 'message': 'out of memory', 'seconds': 0.0},
  }
  write_sweep(folder, trials, states)
  (folder / 'failed').mkdir()
  runs = {run.name: run for run in read_runs([tmp_path])}
  assert runs.keys() == set(names)
  # Its scores are the last thing that a run writes.
  assert runs['bits=4,seed=0'].state == 'done'
  assert runs['bits=4,seed=0'].seconds == 5.0
  failed = runs['failed']
  assert (failed.state, failed.message) == ('failed', 'out of memory')
  assert failed.seconds is None
  assert failed.config['generator.bits.weights'] == 8
  assert runs['waiting'].state == 'waiting'
  assert runs['waiting'].command == 'waiting'


def test_each_run_is_there_once_and_has_a_name_of_its_own(
  tmp_path, monkeypatch
):
  for parent in 'a', 'b':
    make_run(tmp_path / parent / 'same', grid=False)
  make_run(tmp_path / 'b' / 'other', grid=False)
  monkeypatch.chdir(tmp_path)
  runs = read_runs([tmp_path, 'a', tmp_path / 'a' / 'same', 'b/../b'])
  assert sorted(run.name for run in runs) == ['a/same', 'b/same', 'other']


@pytest.mark.parametrize('make', [True, False])
def test_no_run_is_said_in_a_line(tmp_path, make):
  folder = tmp_path / 'nothing'
  if make:
    (folder / 'deep').mkdir(parents=True)
  with pytest.raises(UserError, match=f'{folder}') as error:
    read_runs([folder])
  assert '\n' not in str(error.value)


def test_the_fingerprint_changes_with_what_is_shown(tmp_path):
  folder = make_sweep(tmp_path / 's', bits=(4,), seeds=(0, 1), grid=False)
  seen = [fingerprint([folder])]
  assert fingerprint([folder]) == seen[0]

  def changed():
    seen.append(fingerprint([folder]))
    return seen[-1] not in seen[:-1]

  with (folder / 'bits=4,seed=0' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 110}\n')
  assert changed()
  states = json.loads((folder / 'states.json').read_text())
  states['bits=4,seed=1']['state'] = 'failed'
  (folder / 'states.json').write_text(json.dumps(states))
  assert changed()
  make_run(folder / 'one more', grid=False)
  assert changed()
