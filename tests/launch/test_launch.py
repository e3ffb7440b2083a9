"""What is in launch/, read by the tools that it is for, as far as offline."""

import copy
from pathlib import Path
import re
import shlex
import shutil
import subprocess

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'
KUBERNETES = sorted((LAUNCH / 'kubernetes').glob('*.yaml'))
CLUSTERS = sorted((LAUNCH / 'gcp').glob('*.yaml'))
SCRIPTS = sorted([*LAUNCH.rglob('*.sh'), *LAUNCH.rglob('*.sbatch')])


def by_name(path):
  return path.name


def load(path):
  import yaml

  return yaml.safe_load(path.read_text())


def pod_templates(value):
  """Every pod template in a resource of whatever kind."""
  if isinstance(value, dict):
    if 'containers' in value.get('spec', {}):
      yield value
    else:
      for inner in value.values():
        yield from pod_templates(inner)
  elif isinstance(value, list):
    for inner in value:
      yield from pod_templates(inner)


def test_nothing_is_left_out():
  assert [len(x) for x in (KUBERNETES, CLUSTERS, SCRIPTS)] == [4, 2, 3]


@pytest.mark.launch
@pytest.mark.parametrize('path', KUBERNETES, ids=by_name)
def test_kubernetes_takes_it(path):
  import kubernetes_validate

  resource = load(path)
  core = '.' not in resource['apiVersion']
  pods = list(pod_templates(resource))
  assert core or pods
  if core:
    kubernetes_validate.validate(resource, '1.31', strict=True)
  for template in pods:
    pod = {
      'apiVersion': 'v1',
      'kind': 'Pod',
      'metadata': template.get('metadata', {}),
      'spec': template['spec'],
    }
    kubernetes_validate.validate(pod, '1.31', strict=True)


@pytest.mark.launch
@pytest.mark.parametrize('path', KUBERNETES, ids=by_name)
def test_what_a_pod_mounts_is_there(path):
  claim = load(LAUNCH / 'kubernetes/shared.yaml')['metadata']['name']
  for template in pod_templates(load(path)):
    spec = template['spec']
    (volume,) = spec['volumes']
    assert volume['persistentVolumeClaim']['claimName'] == claim
    for container in spec['containers']:
      resources = container['resources']
      assert resources['limits'] == resources['requests']
      (mount,) = container['volumeMounts']
      assert mount['name'] == volume['name']
      for entry in container['env']:
        value = entry.get('value', mount['mountPath'])
        assert value.startswith(mount['mountPath'])


@pytest.mark.launch
@pytest.mark.parametrize('path', SCRIPTS, ids=by_name)
def test_shellcheck_finds_nothing(path):
  assert shutil.which('shellcheck')
  done = subprocess.run(
    ['shellcheck', path], capture_output=True, text=True, check=False
  )
  assert not done.returncode, done.stdout


@pytest.mark.ray
@pytest.mark.parametrize('path', CLUSTERS, ids=by_name)
def test_the_cluster_launcher_takes_it(path):
  import jsonschema
  from ray.autoscaler._private import util

  config = load(path)
  prepared = util.prepare_config(copy.deepcopy(config))
  util.validate_config(prepared)
  with pytest.raises(jsonschema.ValidationError):
    util.validate_config(prepared | {'max_wokers': 1})
  types = config['available_node_types']
  assert types[config['head_node_type']]['resources'] == {'CPU': 0}


def commands():
  """The commands of the package that launch/ holds, with their flags."""
  for path in [*KUBERNETES, *SCRIPTS, *LAUNCH.rglob('*.md')]:
    text = path.read_text().replace('\\\n', ' ')
    if path.suffix == '.yaml':
      resource = load(path)
      found = [resource['spec'].get('entrypoint', '').replace(';', r'\;')]
      found += [
        shlex.join(container.get('command', []))
        for template in pod_templates(resource)
        for container in template['spec']['containers']
      ]
    else:
      found = re.findall(r'^ *(?:srun )?(python -m qgan_jax.*)$', text, re.M)
    for command in found:
      if command:
        yield path, shlex.split(command, comments=True)


@pytest.mark.launch
def test_every_command_has_flags_that_are_there():
  known = {
    name: set(
      re.findall(
        r'^\s*--(?:\[no\])?([\w.]+)',
        subprocess.run(
          ['python', '-m', f'qgan_jax.{name}', '--help'],
          cwd=ROOT,
          capture_output=True,
          text=True,
          check=True,
        ).stdout,
        re.M,
      )
    )
    for name in ('main', 'sweep')
  }
  seen = 0
  for path, (python, dash_m, module, *arguments) in commands():
    assert (python, dash_m) == ('python', '-m'), path
    flags = known[module.removeprefix('qgan_jax.')]
    for argument in arguments:
      name = re.match('--([^=]+)', argument)
      if name:
        assert name[1] in flags, f'{path}: {argument}'
        seen += 1
  assert seen > 12
