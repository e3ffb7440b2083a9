"""Slurm through submitit: its stand-in, and the real one where there is one."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

from fakes import assert_never_two_at_a_time, supervise, trace, unit
import pytest

from qgan_jax.errors import UserError
from qgan_jax.launchers import slurm

pytestmark = pytest.mark.slurm
REAL = (
  bool(shutil.which('sinfo'))
  and not subprocess.run(['sinfo'], capture_output=True, check=False).returncode
)
CLUSTERS = ['local', *['slurm'] * REAL]


@pytest.fixture(params=CLUSTERS)
def launch(request, tmp_path):
  def make(**options):
    return slurm.SlurmLauncher(
      tmp_path / 'slurm', cluster=request.param, grace=10.0, **options
    )

  make.real = request.param == 'slurm'
  return make


def later(folder, name, what):
  """Does something to the process of a trial that has got anywhere."""

  def act():
    while not (folder / name / 'checkpoints' / '4').exists():
      time.sleep(0.01)
    what(trace(folder, name)[-1][1])

  thread = threading.Thread(target=act)
  thread.start()
  return thread


def job_of(pid):
  """The Slurm job that a process is in."""
  with open(f'/proc/{pid}/environ', 'rb') as file:
    return re.search(rb'SLURM_JOB_ID=(\d+)', file.read())[1].decode()


def test_a_killed_one_goes_on_from_its_checkpoint(launch, tmp_path):
  units = [unit(tmp_path, 'a', 'once=6'), unit(tmp_path, 'b', 'nan=5')]
  care = supervise(tmp_path, units, launch())
  assert care.run() == 1
  a, b = care.statuses
  assert (a.state, a.attempts) == ('done', 2)
  assert (b.state, b.attempts, b.message) == ('failed', 1, 'step 5 gave NaN')
  starts = [step for event, _, step in trace(tmp_path, 'a') if event == 'start']
  assert starts == [0, 4]
  assert_never_two_at_a_time(tmp_path, 'a')


def test_a_signal_lets_trials_save(launch, tmp_path):
  units = [unit(tmp_path, 'a', 'slow', steps=600)]
  care = supervise(tmp_path, units, launch())
  thread = later(tmp_path, 'a', lambda pid: os.kill(os.getpid(), signal.SIGINT))
  assert care.run() == 130
  thread.join()
  _, pid, last = trace(tmp_path, 'a')[-1]
  assert (tmp_path / 'a' / 'checkpoints' / str(last)).exists()
  with pytest.raises(ProcessLookupError):
    os.kill(pid, 0)


@pytest.mark.parametrize(
  'command',
  [
    ('scancel', '--signal=TERM'),  # As a pre-emption begins.
    ('scancel', '--signal=USR2'),  # As a time limit comes near.
    ('scancel', '--signal=KILL'),  # As a machine that vanishes.
  ],
  ids=lambda command: command[1],
)
def test_what_slurm_ends_is_submitted_again(launch, tmp_path, command):
  if not launch.real:
    command = ('kill', command[1].replace('--signal=', '-'))
  care = supervise(tmp_path, [unit(tmp_path, 'a', 'slow', steps=60)], launch())

  def end(pid):
    subprocess.run([*command, job_of(pid) if launch.real else str(pid)])

  if not launch.real and command[1] == '-USR2':
    command = ('kill', '-TERM')
  thread = later(tmp_path, 'a', end)
  assert care.run() == 0
  thread.join()
  assert care.statuses[0].attempts == 2
  assert_never_two_at_a_time(tmp_path, 'a')
  starts = [step for event, _, step in trace(tmp_path, 'a') if event == 'start']
  assert 4 <= starts[1] < 60


def test_what_is_asked_of_slurm(tmp_path, monkeypatch):
  """The script that sbatch would be given."""
  (tmp_path / 'bin').mkdir()
  for name in 'sbatch', 'srun':
    (tmp_path / 'bin' / name).write_text('#!/bin/sh\necho no\n')
    (tmp_path / 'bin' / name).chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}/bin:{os.environ["PATH"]}')
  launcher = slurm.SlurmLauncher(
    tmp_path,
    cpus=3,
    gpus=2,
    options={'partition': 'gpu', 'time': '90', 'mem': '8G'},
    grace=60.0,
  )
  text = launcher._executor._executor._make_submission_file_text('x', '1')
  lines = {x for x in text.splitlines() if x.startswith('#SBATCH')}
  assert {
    '#SBATCH --cpus-per-task=3',
    '#SBATCH --gpus-per-node=2',
    '#SBATCH --partition=gpu',
    '#SBATCH --time=90',
    '#SBATCH --mem=8G',
    '#SBATCH --no-requeue',
    '#SBATCH --signal=USR2@90',
  } <= lines


def test_what_cannot_be_is_said(tmp_path, monkeypatch):
  with pytest.raises(UserError, match='time=1h is no number of minutes'):
    slurm.SlurmLauncher(tmp_path, options={'time': '1h'})
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(UserError, match='Slurm cannot be used here'):
    slurm.SlurmLauncher(tmp_path)
