"""Ctrl-C while the main thread is outside of Python."""

import signal
import subprocess
import sys
import time

import pytest

# A key derived in C for some minutes, as a compiler works: nothing in Python
# is run meanwhile, and signals do not interrupt it.
BUSY = """
import hashlib
from qgan_jax import errors

def main(argv):
  print('busy', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'', b'', ROUNDS)
  print('after', flush=True)

errors.run(main)
"""


def start(rounds):
  process = subprocess.Popen(
    [sys.executable, '-c', BUSY.replace('ROUNDS', str(rounds))],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'busy\n'
  return process


def test_it_is_answered_at_once_and_ends_at_once_the_second_time():
  process = start(10**9)
  try:
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == '\n'
    assert 'once more ends at once' in process.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(0.5)  # The first is for what runs to end by itself.
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
  finally:
    process.kill()


def test_the_first_ends_the_command_where_python_is_back():
  process = start(3 * 10**6)
  process.send_signal(signal.SIGINT)
  stdout, stderr = process.communicate(timeout=60)
  assert (process.returncode, stdout) == (130, '')
  assert stderr.endswith('interrupted\n')
