"""Runs a program from a file in a separate process with limits."""

from collections.abc import Sequence
import contextlib
import json
import math
from multiprocessing.connection import Connection, Pipe
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
import weakref

import numpy as np

from qgan_jax.artifacts.described import Signature
from qgan_jax.artifacts.drawer import part_of

# Seconds for each answer: the first draws after compiling.
TIME_LIMIT = 300
# Bytes that the process may take for itself, beside what its runtime has taken
# before it sees the program.
MEMORY = 2**29
# And so many more for each byte of the program.
MEMORY_PER_BYTE = 64
_LOOK = 0.02  # Seconds between two looks at its memory.
_MAX_ANSWER = 2**20


class ProgramError(Exception):
  """A program cannot be read or run; the message says why, in plain words."""


class Program:
  """A program that a runtime has loaded in another process.

  Attributes:
    signature: its inputs and output.
    seconds: time limit for an answer.
  """

  def __init__(self, runtime: str, content: bytes, seconds: float) -> None:
    """Starts the process.

    Args:
      runtime: one of `runtimes.RUNTIMES`.
      content: of the program.
      seconds: time limit for an answer.

    Raises:
      ProgramError: the runtime cannot read it.
    """
    self.seconds = seconds
    self._most = sys.maxsize
    self._connection, other = Pipe()
    environment = os.environ | {
      # The same packages are found; a GPU's memory is left to others.
      'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    }
    with other:
      self._process = subprocess.Popen(
        [sys.executable, '-m', 'qgan_jax.artifacts.runtimes', runtime,
         str(other.fileno())],
        pass_fds=(other.fileno(),),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
      )  # fmt: skip
    self._end = weakref.finalize(self, _end, self._process, self._connection)
    self._answer(_MAX_ANSWER)
    self._most = (
      _memory(self._process.pid) + MEMORY + MEMORY_PER_BYTE * len(content)
    )
    self._send(content)
    inputs, output = json.loads(self._answer(_MAX_ANSWER))
    self.signature = Signature(
      tuple((tuple(shape), dtype) for _, shape, dtype in inputs),
      tuple(output),
    )

  def __call__(self, *inputs: np.ndarray) -> np.ndarray:
    """Runs the program on a batch; returns float32 [B, …].

    Large images are computed a few at a time.

    Raises:
      ProgramError: it fails, or takes too long or too much memory.
    """
    part = part_of(self.signature.output)
    return np.concatenate(
      [
        self._run([x[start : start + part] for x in inputs])
        for start in range(0, len(inputs[0]), part)
      ]
    )

  def _run(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
    contents = [
      np.ascontiguousarray(x, dtype).tobytes()
      for x, (_, dtype) in zip(inputs, self.signature.inputs, strict=True)
    ]
    # Sent only when all are ready: one that fails leaves nothing behind, which
    # the other process would take for a part of the next call.
    for content in contents:
      self._send(content)
    shape = len(inputs[0]), *self.signature.output
    size = 4 * math.prod(shape)
    answer = self._answer(max(size, _MAX_ANSWER))
    if len(answer) != size:
      raise ProgramError(f'it gave {len(answer)} bytes instead of {size}')
    return np.frombuffer(answer, np.float32).reshape(shape)

  def _send(self, content: bytes) -> None:
    # Where it has ended, `_answer` says how.
    with contextlib.suppress(OSError):
      self._connection.send_bytes(content)

  def _answer(self, most: int) -> bytes:
    """What it says next, which has to be at most so many bytes."""
    end = time.monotonic() + self.seconds
    try:
      while not self._connection.poll(_LOOK):
        if _memory(self._process.pid) > self._most:
          raise ProgramError(
            f'it takes more than {MEMORY >> 20} MiB of memory and '
            f'{MEMORY_PER_BYTE} bytes for each of its own'
          )
        if time.monotonic() > end:
          raise ProgramError(
            f'it took more than {self.seconds:g} seconds; give more by '
            '--time_limit'
          )
      answer = self._connection.recv_bytes(most + 1)
    except (EOFError, ConnectionError):
      code = self._process.wait()
      name = f'exit code {code}' if code >= 0 else signal.strsignal(-code)
      raise ProgramError(f'its runtime crashed: {name}') from None
    except OSError:
      # It may wait until the rest of a longer answer is taken; nobody will.
      self._end()
      raise ProgramError(f'it gave no answer of at most {most} bytes') from None
    except ProgramError:
      self._end()
      raise
    if answer[:1] != b'+':
      raise ProgramError(answer[1:].decode(errors='replace'))
    return answer[1:]


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
  connection.close()
  process.kill()
  process.wait()


def _memory(pid: int) -> int:
  """Bytes that a process has taken for itself; 0 where Linux is not.

  Libraries, which are files, do not count.
  """
  try:
    status = Path(f'/proc/{pid}/status').read_text()
  except OSError:
    return 0
  _, _, rest = status.partition('RssAnon:')
  return 1024 * int(rest.split()[0]) if rest else 0
