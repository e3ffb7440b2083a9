import os
import signal
import subprocess
import sys

from command_line import ROOT

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
