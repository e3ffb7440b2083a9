"""Ray for real: two nodes on this machine."""

import os
import signal
import threading
import time

from command_line import parent
from fakes import assert_never_two_at_a_time, Log, supervise, trace, unit
import pytest

from qgan_jax.errors import UserError

pytestmark = pytest.mark.ray


@pytest.fixture(scope='module')
def cluster():
  from ray import cluster_utils

  cluster = cluster_utils.Cluster(
    initialize_head=True, head_node_args={'num_cpus': 1}
  )
  cluster.add_node(num_cpus=1, resources={'far': 1})
  yield cluster
  cluster.shutdown()


@pytest.fixture
def launch(cluster):
  from qgan_jax.launchers.ray import RayLauncher

  launchers = []

  def make(**options):
    settings = {'address': cluster.address, 'grace': 10.0, **options}
    launchers.append(RayLauncher(**settings))
    return launchers[-1]

  yield make
  for launcher in launchers:
    launcher.close()


def wait_for(path):
  deadline = time.monotonic() + 60
  while not path.exists() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert path.exists()


def later(folder, name, what):
  """Does something to the newest process of a trial that has got anywhere."""

  def act():
    wait_for(folder / name / 'checkpoints' / '4')
    what(trace(folder, name)[-1][1])

  thread = threading.Thread(target=act)
  thread.start()
  return thread


def test_a_worker_killed_in_mid_trial_costs_nothing(launch, tmp_path):
  view = Log()
  names = ['a', 'b', 'c', 'd']
  units = [unit(tmp_path, name, 'slow', steps=40) for name in names]
  care = supervise(tmp_path, units, launch(), view)
  thread = later(
    tmp_path, 'b', lambda pid: os.kill(parent(pid), signal.SIGKILL)
  )
  assert care.run() == 0
  thread.join()
  assert [s.state for s in care.statuses] == ['done'] * 4
  assert [s.attempts for s in care.statuses] == [1, 2, 1, 1]
  (message,) = (m for who, _, m in view.lines if who == 'b' and m)
  assert message == 'its machine or its worker was lost; retry 1 of 2'
  assert_never_two_at_a_time(tmp_path, 'b')
  starts = [step for event, _, step in trace(tmp_path, 'b') if event == 'start']
  assert len(starts) == 2
  assert 4 <= starts[1] < 40
  # Both nodes had work.
  assert view.states('a').count('running') == 1


def test_a_node_that_is_lost_is_not_missed(cluster, launch, tmp_path):
  pair = [cluster.add_node(num_cpus=1, resources={'p': 1}) for _ in range(2)]
  care = supervise(
    tmp_path,
    [unit(tmp_path, 'a', 'slow', steps=60)],
    launch(resources={'p': 1}),
  )

  def lose(pid):
    raylet = parent(parent(pid))
    (node,) = (
      node
      for node in pair
      if raylet in (p.process.pid for p in node.all_processes['raylet'])
    )
    cluster.remove_node(node, allow_graceful=False)

  thread = later(tmp_path, 'a', lose)
  assert care.run() == 0
  thread.join()
  assert care.statuses[0].attempts == 2
  assert_never_two_at_a_time(tmp_path, 'a')
  for node in set(pair) & set(cluster.worker_nodes):
    cluster.remove_node(node)


def test_a_signal_lets_trials_save(launch, tmp_path):
  units = [unit(tmp_path, n, 'slow', steps=600) for n in ('a', 'b', 'c')]
  care = supervise(tmp_path, units, launch())
  thread = later(tmp_path, 'b', lambda pid: os.kill(os.getpid(), signal.SIGINT))
  assert care.run() == 130
  thread.join()
  assert [s.state for s in care.statuses] == ['stopped'] * 3
  for name in 'ab':
    _, pid, last = trace(tmp_path, name)[-1]
    assert (tmp_path / name / 'checkpoints' / str(last)).exists()
    with pytest.raises(ProcessLookupError):
      os.kill(pid, 0)
  assert not (tmp_path / 'c' / 'trace.txt').exists()


def test_variables_and_errors_arrive(launch, tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_SOMETHING', 'x')
  launcher = launch(gpus=0)
  task = unit(tmp_path, 'a', 'nan=5')
  care = supervise(tmp_path, [task], launcher)
  assert care.run() == 1
  assert care.statuses[0].message == 'step 5 gave NaN'
  assert launcher._env['JAX_SOMETHING'] == 'x'


def test_what_no_node_has_is_said(launch, capsys):
  launch(cpus=1).close()
  assert 'no machine' not in capsys.readouterr().err
  launch(cpus=2).close()
  assert 'asks for, CPU=2, GPU=0: trials wait' in capsys.readouterr().err
  launch(resources={'TPU': 4}).close()
  assert 'CPU=1, GPU=0, TPU=4: trials wait' in capsys.readouterr().err


def test_resources_that_ray_does_not_take_are_refused(launch):
  with pytest.raises(UserError, match='--ray_resources: .*num_cpus'):
    launch(resources={'CPU': 2.0})


def test_a_cluster_that_is_not_there_is_named():
  from qgan_jax.launchers.ray import RayLauncher

  with pytest.raises(UserError, match="cannot be reached at 'localhost:1'"):
    RayLauncher(address='localhost:1')
