"""One writer in a run's folder, whoever holds the lock and however it ends."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from qgan_jax.errors import UserError
from qgan_jax.launchers.base import Task
from qgan_jax.launchers.process import TaskProcess
from qgan_jax.records import alone, LOCK, LOCK_VARIABLE

ROOT = Path(__file__).parents[2]
HOLD = (
  'import sys, time; from pathlib import Path; from qgan_jax import records\n'
  'with records.alone(Path(sys.argv[1])):\n'
  '  print("held", flush=True)\n'
  '  time.sleep(float(sys.argv[2]))\n'
)


def hold(folder, seconds):
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(folder), str(seconds)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'held\n'
  return process


def refused(folder):
  with pytest.raises(
    UserError, match=f'at work in {folder}; .*another folder$'
  ):
    alone(folder).__enter__()
  return True


def test_the_second_is_refused_and_a_dead_one_leaves_no_lock(tmp_path):
  folder = tmp_path / 'new' / 'run'
  with alone(folder):
    assert refused(folder)  # In one process, too.
  process = hold(folder, 100)
  assert refused(folder)
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  with alone(folder):
    assert refused(folder)


def test_a_trial_has_the_lock_of_its_launcher(tmp_path):
  folder = tmp_path / 'trial'
  task = Task(
    'trial',
    ('python', '-c', HOLD, str(folder), '0.5'),
    ROOT,
    tmp_path / 'log.txt',
    folder / LOCK,
  )
  job = TaskProcess(task)
  while 'held' not in (tmp_path / 'log.txt').read_text():
    assert job.poll() is None, (tmp_path / 'log.txt').read_text()
    time.sleep(0.01)
  assert refused(folder)
  while job.poll() is None:
    time.sleep(0.01)
  assert job.poll() == 0
  with alone(folder):
    assert refused(folder)


def test_the_lock_of_another_folder_opens_nothing(tmp_path, monkeypatch):
  """A population's task holds one lock, and each of its trials another."""
  with alone(tmp_path / 'a'), alone(tmp_path / 'b'):
    for number in os.listdir('/proc/self/fd'):
      monkeypatch.setenv(LOCK_VARIABLE, number)
      # Even this process's own lock is not inherited by a file opened anew,
      # unless the variable says so.
      path = os.path.realpath(f'/proc/self/fd/{number}')
      if path != str(tmp_path / 'a' / LOCK):
        assert refused(tmp_path / 'a')
  for value in ('', 'x', '-1', '999999', '9' * 30):
    monkeypatch.setenv(LOCK_VARIABLE, value)
    with alone(tmp_path / 'a'):
      assert refused(tmp_path / 'a')


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='file/run: .*another one'):
    alone(tmp_path / 'file' / 'run').__enter__()
