import subprocess
import sys

from command_line import ROOT

PROGRAM = """
from qgan_jax import errors

def main():
  for i in range(100_000):
    print(i)

errors.run(main)
"""


def test_a_reader_that_goes_away_is_no_traceback():
  process = subprocess.Popen(
    [sys.executable, '-c', PROGRAM],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == '0\n'
  process.stdout.close()
  assert process.stderr.read() == ''
  assert process.wait(60) == 128 + 13
