import json
from pathlib import Path

import pytest

from qgan_jax.errors import UserError
from qgan_jax.launchers import local
from qgan_jax.runs.plan import PlannedTrial, Sweep
from qgan_jax.runs.sweeping import make_launcher, printed, Session, units_of


@pytest.fixture
def sweep(tmp_path):
  trials = [
    PlannedTrial(name, (f'--config=x.py:{name}',), {'steps': 5})
    for name in ('bits=8', 'bits=4')
  ]
  return Sweep(tmp_path, trials, {})


@pytest.mark.parametrize(
  ('session', 'accelerators', 'threads'),
  [
    (Session(), False, '1'),
    (Session(cpus=3), False, '3'),
    (Session(cpus=3), True, None),
    (Session(layout='population'), False, None),
    (Session(launcher='slurm', cpus=2), True, '2'),
    (Session(launcher='slurm', gpus=1.0), False, None),
    (Session(launcher='ray', ray_resources=['TPU=4']), False, None),
  ],
)
def test_the_threads_of_a_trial_on_a_cpu_are_part_of_its_command(
  sweep, monkeypatch, session, accelerators, threads
):
  # A cluster's machines are others: what this one has does not count there.
  monkeypatch.setattr(local, 'has_accelerators', lambda: accelerators)
  command = (
    'python -m qgan_jax.main --config=x.py:bits=8 '
    f'--workdir={sweep.folder}/bits=8'
  )
  expected = f'NPROC={threads} {command}' if threads else command
  assert printed(sweep, sweep.trials[0], session) == expected
  if session.layout == 'processes':
    task = units_of(sweep, session)[0].task
    assert task.env == ({'NPROC': threads} if threads else {})


def test_a_population_is_one_task_for_all_trials(sweep):
  (unit,) = units_of(sweep, Session(layout='population'))
  (trials,) = (a for a in unit.task.command if a.startswith('--trials='))
  records = json.loads(Path(trials.partition('=')[2]).read_text())
  assert [Path(record['workdir']).name for record in records] == [
    'bits=8', 'bits=4'
  ]  # fmt: skip
  assert [status.total_steps for status in unit.statuses] == [5, 5]


@pytest.mark.parametrize(
  ('session', 'message'),
  [
    (Session(gpus=1.5), '--gpus=1.5: a whole number, or less than 1'),
    (Session(launcher='slurm', gpus=0.5), '--gpus=0.5: Slurm gives whole GPUs'),
    (
      Session(launcher='slurm', slurm=['partition']),
      "--slurm: 'partition' is not key=value",
    ),
    (
      Session(launcher='ray', ray_resources=['TPU=all']),
      '--ray_resources: .*all',
    ),
    # What would not be used: the flag that names the cluster is forgotten.
    (Session(slurm=['partition=gpu']), '--slurm needs --launcher=slurm'),
    (Session(launcher='slurm', ray_address='a:1'), 'needs --launcher=ray'),
    (Session(layout='population', parallel=2), 'leave out --parallel'),
    (Session(layout='population', gpus=1.0), 'leave out --parallel and --gpus'),
  ],
)
def test_what_no_launcher_can_give_is_refused(tmp_path, session, message):
  with pytest.raises(UserError, match=message):
    make_launcher(tmp_path, session)
