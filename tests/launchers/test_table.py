import io

import pytest
from rich import console

from qgan_jax.launchers import table
from qgan_jax.launchers.progress import Progress
from qgan_jax.launchers.supervisor import Status

DONE = Status(
  'bits=8', 100, 'done', 1, 75.0, '', Progress(100, 2.0, 6.0, 5.25, True)
)
RUNNING = Status('bits=4', 100, 'running', 2, 25.0, '', Progress(40, 2.0, 9.0))
WAITING = Status('bits=2', 100)
FAILED = Status('bits=1', 100, 'failed', 1, 3.0, 'step 5 gave NaN\nmore')


def drawn(statuses, **options):
  settings = {'slots': 1, 'rows': 50, **options}
  text = io.StringIO()
  console.Console(file=text, width=160).print(
    table.make_table(statuses, 'a sweep', **settings)
  )
  return text.getvalue()


def row(text, name):
  line = next(line for line in text.splitlines() if name in line)
  return [cell.strip() for cell in line.split('│')[1:-1]]


def test_the_table_says_how_each_trial_is():
  text = drawn([DONE, RUNNING, WAITING, FAILED])
  assert row(text, 'bits=8') == [
    'bits=8', 'done', '100/100', '', '6.00', '5.25', ''
  ]  # fmt: skip
  assert row(text, 'bits=4') == [
    'bits=4', 'running (start 2)', '40/100', '2', '9.00', '', '0:00:30'
  ]  # fmt: skip
  assert row(text, 'bits=1')[1] == 'failed: step 5 gave NaN'
  # 60 steps of one and 100 of the other, 2 a second; the first one spent 25
  # seconds beside its steps, and the second 5 so far.
  assert '1 of 4 done, 1 running, 1 failed, about 0:02:05 left' in text


def test_of_many_trials_those_that_matter_are_shown_in_order():
  many = [Status(f'seed={i}', 100, 'done') for i in range(200)]
  text = drawn([*many, RUNNING, FAILED], rows=4)
  names = ['seed=0', 'seed=1', 'bits=4', 'bits=1']
  assert [text.index(n) for n in names] == sorted(text.index(n) for n in names)
  assert '… and 198 more' in text
  assert 'seed=2' not in text


@pytest.mark.parametrize(
  ('slots', 'seconds'), [(1, 125.0), (2, 62.5), (8, 62.5), (None, 125.0)]
)
def test_the_time_left_is_that_of_all(slots, seconds):
  assert table.time_left([DONE, RUNNING, WAITING], slots) == seconds
  assert table.time_left([DONE, WAITING], slots) is None


def test_until_one_is_done_the_start_of_those_that_run_counts():
  # 30 and 50 seconds of steps, and 5 seconds before those of the other.
  assert table.time_left([RUNNING, WAITING], 1) == 85.0


def test_lines_for_logs(capsys):
  view = table.LineView(1)
  view.changed(RUNNING)
  view.changed(DONE)
  view.changed(FAILED)
  view.update([DONE])
  assert capsys.readouterr().err.splitlines() == [
    'bits=4: running',
    'bits=8: done in 0:01:15, Fréchet distance 5.25',
    'bits=1: failed: step 5 gave NaN',
    'more',
  ]


def test_the_summary_has_a_line_for_each():
  lines = table.summary([DONE, FAILED]).splitlines()
  assert lines[0].split() == ['trial', 'Fréchet', 'time', 'state']
  assert lines[1].split() == ['bits=8', '5.25', '0:01:15', 'done']
  assert lines[2].split()[:3] == ['bits=1', '0:00:03', 'failed:']
