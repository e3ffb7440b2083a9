"""Names of machines: what is refused, and how."""

import importlib.metadata

import jax
import pytest

from qgan_jax.chips import topologies
from qgan_jax.errors import UserError


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('v5f:2x2', "no chip 'v5f' is known; did you mean 'v5"),
    ('b7', "no chip 'b7' is known; say one of v4, v5e"),
    ('v5e', 'say how many chips, or how they lie, such as v5e:2x2'),
    ('v5e:2x', 'say how many chips'),
    ('h100:0', 'say how many chips'),
    ('v5e:2,2', 'say how many chips'),
  ],
)
def test_a_name_that_is_none_is_refused(name, message):
  with pytest.raises(UserError, match=message) as caught:
    topologies.find(name)
  assert str(caught.value).startswith(f'--on={name}: ')


@pytest.mark.parametrize(
  ('name', 'package'),
  [('v5e:2x2', 'libtpu'), ('h100:1', 'jax-cuda12-plugin')],
)
def test_a_compiler_that_is_missing_is_named(name, package, monkeypatch):
  def missing(package):
    raise importlib.metadata.PackageNotFoundError

  monkeypatch.setattr(topologies.importlib.metadata, 'version', missing)
  with pytest.raises(UserError, match=rf'{package} is missing.*\[preflight\]'):
    topologies.find(name)


@pytest.fixture
def asked(monkeypatch):
  """The names that the compilers are asked for; they answer with devices."""
  names = []

  def get(platform, **options):
    names.append(
      (platform, options.get('topology_name', options.get('topology')))
    )
    if 'x3' in names[-1][1]:
      raise jax.errors.JaxRuntimeError('INVALID_ARGUMENT: not divisible\nmore')
    return type('Topology', (), {'devices': list(range(8))})

  monkeypatch.setattr(topologies.topologies, 'get_topology_desc', get)
  monkeypatch.setattr(topologies.importlib.metadata, 'version', str)
  monkeypatch.setattr(topologies, '_NO_MACHINE', {})
  return names


@pytest.mark.parametrize(
  ('name', 'topology', 'devices', 'chips'),
  [
    ('v5e:2x4', ('tpu', 'v5e:2x4'), 8, 8),
    ('tpu7x:2x2x1', ('tpu', 'tpu7x:2x2x1'), 8, 4),
    ('v5e:1', ('tpu', 'v5e:2x2'), 2, 1),
    ('v5p:1', ('tpu', 'v5p:2x2x1'), 2, 1),
    ('h100:8', ('cuda', '1x1x8'), 8, 8),
    ('h100:2x4', ('cuda', '2x1x4'), 8, 8),
  ],
)
def test_names_become_topologies(asked, name, topology, devices, chips):
  machine = topologies.find(name)
  assert asked == [topology]
  assert (len(machine.devices), machine.chips) == (devices, chips)
  assert machine.chip.name == name.partition(':')[0]
  assert not machine.here


def test_a_topology_that_the_compiler_refuses_is_told(asked):
  with pytest.raises(
    UserError, match=r'no such machine \(INVALID.*divisible\);'
  ):
    topologies.find('v5e:3x3')
  with pytest.raises(UserError, match='h100:COUNT, or h100:HOSTSxCOUNT'):
    topologies.find('h100:2x2x2')


def test_here_is_what_jax_has():
  machine = topologies.find('here')
  assert machine.here
  assert machine.devices == tuple(jax.devices())
  assert (machine.chip, machine.backend) == (None, 'cpu')
