"""What a machine has, and a container leaves of it."""

import pytest

from qgan_jax.training import machine


@pytest.mark.parametrize('version', [0, 1])
def test_a_containers_limit_is_the_memory_that_there_is(
  version, tmp_path, monkeypatch
):
  files = tmp_path / 'one', tmp_path / 'two'
  monkeypatch.setattr(machine, '_CONTAINER', files)
  found = machine.memory()
  assert 2**28 < found < 2**50
  files[version].write_text('268435456\n')
  assert machine.memory() == 2**28
  for none in ('max', '9223372036854771712'):
    files[version].write_text(none)
    assert machine.memory() == found
