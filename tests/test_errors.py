import os
import signal
import subprocess
import sys

from absl import flags
from command_line import ROOT
import pytest

from qgan_jax import errors

PROGRAM = """
import sys, time
from qgan_jax import errors

def main(argv):
  for i in range(100_000):
    print(i)
  print('waiting', file=sys.stderr)
  time.sleep(60)

errors.run(main)
"""


def _start():
  buffered = {k: v for k, v in os.environ.items() if k != 'PYTHONUNBUFFERED'}
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM],
    cwd=ROOT,
    env=buffered,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_a_reader_that_goes_away_is_no_traceback():
  process = _start()
  assert process.stdout.readline() == '0\n'
  process.stdout.close()
  assert process.stderr.read() == ''
  assert process.wait(60) == 128 + 13


def test_ctrl_c_is_no_traceback():
  process = _start()
  assert process.stdout.readline() == '0\n'
  for _ in range(90_000):  # The rest fits into the pipe.
    process.stdout.readline()
  assert process.stderr.readline() == 'waiting\n'
  process.stdout.close()  # A terminal interrupts the reader, too.
  process.send_signal(signal.SIGINT)
  assert process.stderr.read() == 'interrupted\n'
  assert process.wait(60) == 130


def _run(program, **variables):
  return subprocess.run(
    [sys.executable, '-c', program],
    cwd=ROOT,
    env=os.environ | variables,
    capture_output=True,
    timeout=60,
    check=False,
  )


SHOWS = """
from qgan_jax import errors
errors.run(lambda argv: print('64×64 …'))
"""


def test_what_the_output_cannot_show_becomes_question_marks():
  done = _run(SHOWS, PYTHONIOENCODING='ascii')
  assert (done.returncode, done.stdout) == (0, b'64?64 ?\n')
  done = _run(SHOWS, PYTHONIOENCODING='utf-8')
  assert done.stdout.decode() == '64×64 …\n'


def test_help_is_shown_whatever_the_output_can_show():
  program = "import sys; sys.argv = ['', '--help']\n"
  program += 'from qgan_jax import errors, sample; errors.run(sample.main)'
  done = _run(program, PYTHONIOENCODING='ascii')
  assert done.returncode == 0, done.stderr
  assert b'--out: What to write: ?.png, ?.npz or a folder ?/' in done.stdout


def test_an_error_of_a_path_is_a_sentence_and_others_are_faults(
  monkeypatch, capsys, tmp_path
):
  def fails(error):
    def main(argv):
      raise error

    return main

  monkeypatch.setattr(sys, 'argv', ['command'])
  with pytest.raises(SystemExit) as ended:
    errors.run(fails(FileNotFoundError(2, 'no such file', str(tmp_path / 'a'))))
  assert ended.value.code == 2
  assert capsys.readouterr().err == f'error: {tmp_path}/a: no such file\n'
  for error in OSError('of no path'), ValueError('a fault'):
    with pytest.raises(type(error)):
      errors.run(fails(error))


def test_a_message_is_one_line_of_bounded_length(monkeypatch, capsys):
  def main(argv):
    raise errors.UserError('one\ntwo ' + 'x' * 10_000 + ' end')

  monkeypatch.setattr(sys, 'argv', ['command'])
  with pytest.raises(SystemExit):
    errors.run(main)
  said = capsys.readouterr().err
  assert said.startswith('error: one two xxx')
  assert said.endswith('xxx end\n')
  assert len(said) < 2100


def test_home_folders_in_paths(monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  for path, expected in (
    ('~', '/home/someone'),
    ('~/a/', '/home/someone/a/'),
    ('a/~', 'a/~'),
    ('./~b', './~b'),
    ('', ''),
  ):
    assert errors.expand_home(path) == expected
  with pytest.raises(errors.UserError, match='home folder ~no_such_user is'):
    errors.expand_home('~no_such_user/a')


def test_every_path_that_a_command_takes_may_begin_with_home(monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  values = flags.FlagValues()
  errors.define_path('out', 'A folder.', values)
  for argument in '--out=~/a', '-out=~/a':
    errors.parse_flags([argument], values)
    assert values.out == '/home/someone/a'


@pytest.mark.parametrize(
  'error',
  [
    'MemoryError()',
    'OSError(12, "Cannot allocate memory")',
    'RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")',
    'ImportError("some.so: failed to map segment from shared object")',
  ],
)
def test_a_want_of_memory_is_one_sentence(error):
  done = _run(
    f'from qgan_jax import errors\ndef main(argv):\n  raise {error}\n'
    'errors.run(main)'
  )
  assert done.returncode == 2
  assert done.stderr.startswith(b'error: there is not enough memory: ')
  assert done.stderr.count(b'\n') == 1


def test_a_fault_of_ours_stays_a_traceback():
  done = _run(
    'from qgan_jax import errors\ndef main(argv):\n  raise ValueError(5)\n'
    'errors.run(main)'
  )
  assert done.returncode == 1
  assert b'Traceback' in done.stderr
