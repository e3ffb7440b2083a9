import os
import signal

# Unset, JAX would try to reach accelerators that a test must not depend on.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import command_line
import pytest

os.environ.setdefault('XLA_FLAGS', command_line.XLA_FLAGS)


def pytest_configure():
  # A shell's background jobs ignore it, and so would the commands they start.
  signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def commands(tmp_path_factory):
  """Starts `python -m qgan_jax.MODULE ARGUMENTS`."""
  with command_line.commands(tmp_path_factory.mktemp('cache')) as start:
    yield start
