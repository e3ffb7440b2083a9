"""Units of fake trials, and someone who looks on."""

from pathlib import Path

from qgan_jax.launchers.base import Task
from qgan_jax.launchers.supervisor import Status, Supervisor, Unit

FAKE = Path(__file__).parent / 'fake_trial.py'


class Log:
  """A view that keeps what it is shown."""

  def __init__(self):
    self.lines = []

  def changed(self, status):
    self.lines.append((status.name, status.state, status.message))

  def update(self, statuses):
    self.statuses = statuses

  def states(self, name):
    return [state for who, state, _ in self.lines if who == name]


def unit(folder, name, *options, steps=12):
  workdir = folder / name
  task = Task(
    name=name,
    command=('python', str(FAKE), str(workdir), str(steps), *options),
    cwd=folder,
    log=workdir / 'log.txt',
    lock=workdir / 'run.lock',
  )
  return Unit(task, [(Status(name, steps), workdir)])


def supervise(folder, units, launcher, view=None, **options):
  settings = {'retries': 2, 'grace': 10.0, 'pause': 0.01, **options}
  return Supervisor(
    units, launcher, view or Log(), states=folder / 'states.json', **settings
  )


def trace(folder, name):
  """What was done in a run's folder: (event, process, step)."""
  lines = (folder / name / 'trace.txt').read_text().splitlines()
  return [(e, int(p), int(s)) for e, p, s in map(str.split, lines)]


def assert_never_two_at_a_time(folder, name):
  """Each process does all of its steps before the next one begins."""
  processes = [process for _, process, _ in trace(folder, name)]
  assert len(set(processes)) == sum(
    a != b for a, b in zip([None, *processes], processes, strict=False)
  )
