import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

from fakes import assert_never_two_at_a_time, FAKE, Log, supervise, trace, unit
import pytest

from qgan_jax import errors, records
from qgan_jax.errors import UserError
from qgan_jax.launchers import process, supervisor
from qgan_jax.launchers.base import LOST
from qgan_jax.launchers.local import LocalLauncher, Place


def places(count):
  return LocalLauncher([Place()] * count)


def alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def pids(folder, name):
  return {process for _, process, _ in trace(folder, name)}


def test_all_are_done_and_a_second_time_nothing_is(tmp_path):
  view = Log()
  units = [unit(tmp_path, name) for name in 'abc']
  care = supervise(tmp_path, units, places(2), view)
  assert care.run() == 0
  for name in 'abc':
    assert view.states(name) == ['running', 'done']
  statuses = care.statuses
  assert [s.progress.score for s in statuses] == [pytest.approx(100 / 12)] * 3
  assert all(s.attempts == 1 and s.seconds > 0 for s in statuses)
  assert json.loads((tmp_path / 'states.json').read_text())['b'] == {
    'state': 'done',
    'attempts': 1,
    'seconds': statuses[1].seconds,
    'message': '',
  }

  view = Log()
  again = supervise(
    tmp_path, [unit(tmp_path, name) for name in 'abc'], places(2), view
  )
  assert again.run() == 0
  assert view.lines == []
  assert again.statuses[1].seconds == statuses[1].seconds
  assert len(pids(tmp_path, 'a')) == 1


def test_a_killed_one_goes_on_from_its_checkpoint(tmp_path):
  view = Log()
  units = [unit(tmp_path, 'a', 'once=6'), unit(tmp_path, 'b')]
  care = supervise(tmp_path, units, places(2), view)
  assert care.run() == 0
  starts = [step for event, _, step in trace(tmp_path, 'a') if event == 'start']
  assert starts == [0, 4]
  assert_never_two_at_a_time(tmp_path, 'a')
  assert care.statuses[0].attempts == 2
  (message,) = (m for who, _, m in view.lines if who == 'a' and m)
  assert message.startswith('ended by SIGKILL, see ')
  assert message.endswith('retry 1 of 2')


def test_retries_are_counted_without_progress_only(tmp_path):
  # From 4 to 6 again and again: two retries gain nothing.
  care = supervise(tmp_path, [unit(tmp_path, 'stuck', 'crash=6')], places(1))
  assert care.run() == 1
  status = care.statuses[0]
  assert (status.state, status.attempts) == ('failed', 3)
  assert 'SIGKILL' in status.message

  # From 0 to 5, from 4 to 9, from 8 to the end.
  slow = unit(tmp_path, 'slow', 'every=5')
  care = supervise(tmp_path, [slow], places(1), retries=1)
  assert care.run() == 0
  assert care.statuses[0].attempts == 3


def test_an_error_of_the_users_is_not_tried_again(tmp_path):
  units = [unit(tmp_path, 'a', 'nan=5'), unit(tmp_path, 'b')]
  care = supervise(tmp_path, units, places(2))
  assert care.run() == 1
  a, b = care.statuses
  assert (a.state, a.attempts, a.message) == ('failed', 1, 'step 5 gave NaN')
  assert b.state == 'done'


def test_what_the_first_is_refused_for_starts_no_other(tmp_path):
  units = [unit(tmp_path, name, 'refuse') for name in 'abc']
  care = supervise(tmp_path, units, places(3))
  with pytest.raises(UserError, match='no data here; get some .*first trial'):
    care.run()
  assert [s.attempts for s in care.statuses] == [1, 0, 0]
  assert not (tmp_path / 'b').exists()


def test_a_first_that_cannot_begin_does_not_hold_up_the_others(tmp_path):
  units = [unit(tmp_path, 'a', 'die'), unit(tmp_path, 'b')]
  care = supervise(tmp_path, units, places(2), retries=1)
  assert care.run() == 1
  assert [s.state for s in care.statuses] == ['failed', 'done']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_running_and_nothing_lost(tmp_path, number):
  units = [unit(tmp_path, name, 'slow', steps=400) for name in 'abc']
  care = supervise(tmp_path, units, places(2))

  def later():
    while not (tmp_path / 'b' / 'checkpoints' / '4').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), number)

  threading.Thread(target=later).start()
  assert care.run() == 128 + number
  assert [s.state for s in care.statuses] == ['stopped'] * 3
  for name in 'ab':
    _, pid, last = trace(tmp_path, name)[-1]
    assert not alive(pid)
    # It was let finish its step, and save it.
    assert (tmp_path / name / 'checkpoints' / str(last)).exists()
  assert not (tmp_path / 'c').exists()
  states = json.loads((tmp_path / 'states.json').read_text())
  assert [s['state'] for s in states.values()] == ['stopped'] * 3


@pytest.mark.parametrize('nohup', [False, True])
def test_a_hang_up_ends_a_sweep_unless_nohup_started_it(nohup):
  handler = signal.SIG_IGN if nohup else signal.SIG_DFL
  before = signal.signal(signal.SIGHUP, handler)
  try:
    with process.noted([signal.SIGHUP, signal.SIGTERM]) as received:
      os.kill(os.getpid(), signal.SIGHUP)
      os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGHUP, signal.SIGTERM][nohup:]
    assert signal.getsignal(signal.SIGHUP) == handler
  finally:
    signal.signal(signal.SIGHUP, before)


def test_what_does_not_hear_is_killed_after_the_grace(tmp_path):
  units = [unit(tmp_path, 'a', 'slow', 'deaf', steps=400)]
  care = supervise(tmp_path, units, places(1), grace=0.3)

  def later():
    while not (tmp_path / 'a' / 'checkpoints' / '4').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=later).start()
  start = time.monotonic()
  assert care.run() == 143
  assert time.monotonic() - start < 5
  assert not any(map(alive, pids(tmp_path, 'a')))


def test_where_the_sweep_itself_is_killed_its_trials_end(tmp_path):
  code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(FAKE.parent)!r})
from fakes import supervise, unit
from qgan_jax.launchers.local import LocalLauncher, Place
folder = Path({str(tmp_path)!r})
units = [unit(folder, 'a', 'slow', steps=40)]
supervise(folder, units, LocalLauncher([Place()])).run()
"""
  sweep = subprocess.Popen([sys.executable, '-c', code])
  while not (tmp_path / 'a' / 'checkpoints' / '4').exists():
    assert sweep.poll() is None
    time.sleep(0.01)
  sweep.kill()
  sweep.wait()
  # The next one waits for what is left of the first, if anything is.
  care = supervise(tmp_path, [unit(tmp_path, 'a', 'slow', steps=40)], places(1))
  assert care.run() == 0
  assert care.statuses[0].attempts == 2
  assert_never_two_at_a_time(tmp_path, 'a')
  starts = [step for event, _, step in trace(tmp_path, 'a') if event == 'start']
  assert len(starts) == 2
  assert 4 <= starts[1] < 40


def test_a_folder_is_never_worked_on_by_two(tmp_path):
  with open(tmp_path / 'lock', 'w') as file:
    assert records.try_lock(file.fileno())
    task = dataclasses.replace(unit(tmp_path, 'a').task, lock=tmp_path / 'lock')
    task.log.parent.mkdir()
    job = process.TaskProcess(task)
    assert job.poll() is None
    assert not job.running()
    assert 'another process is at work' in task.log.read_text()
  deadline = time.monotonic() + 10
  while (code := job.poll()) is None and time.monotonic() < deadline:
    time.sleep(0.01)
  assert code == 0


def test_a_signal_at_any_moment_waits_for_the_command(tmp_path, monkeypatch):
  task = unit(tmp_path, 'a', 'slow', steps=600).task
  task.log.parent.mkdir()
  polls = []

  def poll(job, real=process.TaskProcess.poll):
    polls.append(job)
    if (tmp_path / 'a' / 'checkpoints' / '4').exists():
      # Within the loop's own condition, where nothing catches an exception.
      signal.raise_signal(signal.SIGINT)
    return real(job)

  monkeypatch.setattr(process.TaskProcess, 'poll', poll)
  assert process.run(task, [signal.SIGINT], grace=10) == 128 + signal.SIGTERM
  last = trace(tmp_path, 'a')[-1][-1]
  assert (tmp_path / 'a' / 'checkpoints' / str(last)).exists()
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_several_trials_say_is_told_apart(capsys):
  with pytest.raises(SystemExit):
    errors.run(raise_two)
  said = capsys.readouterr().err.removeprefix('error: ').strip()
  assert supervisor._own_message(said, 'a') == 'step 3 gave NaN; try r1'
  assert supervisor._own_message(said, 'b') == 'step 5 gave NaN; try r1'


def raise_two(argv):
  raise errors.UserError(
    'runs/a: step 3 gave NaN; try r1', 'runs/b: step 5 gave\nNaN; try r1'
  )


class Deserted:
  """A launcher whose machine is lost at first."""

  slots = None

  def __init__(self, losses):
    self.losses = losses

  def submit(self, task):
    if self.losses:
      self.losses -= 1
      return Lost()
    return process.TaskProcess(task)


class Lost:
  def poll(self):
    return LOST

  def running(self):
    return True


def test_a_lost_machine_is_a_reason_to_start_again(tmp_path):
  view = Log()
  care = supervise(tmp_path, [unit(tmp_path, 'a')], Deserted(2), view)
  assert care.run() == 0
  assert care.statuses[0].attempts == 3
  assert any('worker was lost' in message for _, _, message in view.lines)
