import signal
import subprocess
import sys

from command_line import ROOT

PROGRAM = """
import time
from qgan_jax import errors

def main():
  for i in range(100_000):
    print(i)
  time.sleep(60)

errors.run(main)
"""


def _start():
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM],
    cwd=ROOT,
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
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=60)[1] == 'interrupted\n'
  assert process.returncode == 130
